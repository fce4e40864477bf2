"""Styles that are made of drawings in other styles: pencil, watercolour, and drawings whose hues are turned.

Pictures are RGBA; arrays are (h, w, c) or (h, w) from 0 to 1.
"""

from __future__ import annotations

import random

import numpy as np
from PIL import Image
from scipy import ndimage

Array = np.ndarray
LUMA = (0.299, 0.587, 0.114)


def sketch(drawing: Image.Image, draw: random.Random) -> Image.Image:
    """Grey strokes where the brightness changes, little shading, and an outline, as of a pencil."""
    colour, alpha = _planes(drawing)
    grey = _on_white(colour, alpha) @ np.array(LUMA)
    side = grey.shape[0]
    strokes = grey / np.clip(ndimage.gaussian_filter(grey, side / 50), 0.05, None)  # darker than what lies around
    outline = ndimage.gaussian_gradient_magnitude(alpha, side / 160)
    shade = 0.82 + 0.18 * grey
    grain = 0.015 * ndimage.gaussian_filter(_noise(draw, grey.shape), 1)
    value = np.clip(strokes, 0, 1) ** 1.6 * shade - 1.1 * outline / max(outline.max(), 1e-6) + grain
    value = 0.12 + 0.88 * np.clip(value, 0, 1)
    seen = np.clip(ndimage.gaussian_filter(ndimage.grey_dilation(alpha, size=3), side / 256), 0, 1)
    return _picture(np.repeat(value[..., None], 3, axis=2), seen)


def watercolour(drawing: Image.Image, draw: random.Random) -> Image.Image:
    """Pale mottled colours that have run together, with uneven edges that are darker than what they enclose."""
    colour, alpha = _planes(drawing)
    side = alpha.shape[0]
    wobble = [side / 90 * ndimage.gaussian_filter(_noise(draw, alpha.shape), side / 20) * side / 6 for _ in range(2)]
    places = np.indices(alpha.shape).astype(float) + np.stack(wobble)
    run = ndimage.gaussian_filter(colour * alpha[..., None], (side / 90, side / 90, 0))
    blurred = ndimage.gaussian_filter(alpha, side / 90)
    run = run / np.clip(blurred, 1e-3, None)[..., None]
    run = np.stack(
        [ndimage.map_coordinates(plane, places, order=1, mode="nearest") for plane in np.moveaxis(run, 2, 0)], 2
    )
    edge = ndimage.map_coordinates(blurred, places, order=1, mode="nearest")
    seen = np.clip((edge - 0.35) * 4, 0, 1)
    rim = np.clip(1 - ndimage.gaussian_filter(seen, side / 60), 0, 1) * seen
    mottled = ndimage.gaussian_filter(_noise(draw, alpha.shape), side / 24) * side / 24
    strength = np.clip(0.6 + 0.5 * rim + 0.25 * mottled, 0.3, 1)[..., None]
    return _picture(np.clip(1 - (1 - run) * strength, 0, 1), 0.95 * seen)


def turn_drawing(drawing: Image.Image, degrees: float) -> Image.Image:
    """All hues turned by an angle; greys stay."""
    *_, alpha = drawing.split()
    hue, saturation, value = drawing.convert("RGB").convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int16) + round(degrees / 360 * 256)) % 256
    merged = Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")
    merged.putalpha(alpha)
    return merged


def _planes(drawing: Image.Image) -> tuple[Array, Array]:
    values = np.asarray(drawing.convert("RGBA")).astype(np.float64) / 255
    return values[..., :3], values[..., 3]


def _on_white(colour: Array, alpha: Array) -> Array:
    return colour * alpha[..., None] + 1 - alpha[..., None]


def _noise(draw: random.Random, shape: tuple[int, ...]) -> Array:
    """Normal, as a function of the draw."""
    return np.random.default_rng(draw.getrandbits(64)).standard_normal(shape)


def _picture(colour: Array, alpha: Array) -> Image.Image:
    values = np.concatenate([colour, alpha[..., None]], 2)
    return Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8), "RGBA")
