"""Colours by their names: those of backgrounds, and the ones that a drawing mostly has."""

from __future__ import annotations

import cmath
import colorsys
import math
import random
from collections import Counter
from collections.abc import Mapping

import numpy as np
from PIL import Image

from tools.drawings.filters import turn_drawing

Rgb = tuple[int, int, int]
WHITE: Rgb = (255, 255, 255)
BACKGROUNDS: Mapping[str, Rgb] = {
    "red": (214, 48, 49),
    "orange": (243, 146, 50),
    "yellow": (250, 218, 84),
    "green": (82, 168, 82),
    "light green": (178, 226, 164),
    "blue": (52, 107, 200),
    "light blue": (164, 210, 246),
    "purple": (135, 76, 178),
    "pink": (248, 176, 204),
    "brown": (130, 90, 62),
    "grey": (150, 150, 150),
    "black": (24, 24, 26),
}
JITTER = 14  # of 255, either way, for each of the three

# The highest hue of each, in degrees, for colours that are neither dark nor pale.
HUES = (("red", 14), ("orange", 41), ("yellow", 66), ("green", 178), ("blue", 252), ("purple", 300), ("pink", 342))
LEAST_SATURATION, DARK, BRIGHT = 0.22, 0.22, 0.82
NAMED_SHARE = 0.22  # of a drawing, for its colour to be named
SHARE_TO_TURN = 0.45
LOOKED_AT_PX, OPAQUE = 32, 200
CENTRES = {"red": 0, "orange": 28, "yellow": 52, "green": 120, "blue": 215, "purple": 278, "pink": 325}


def background(name: str, draw: random.Random) -> Rgb:
    """Of a name in `BACKGROUNDS`, a little different every time."""
    red, green, blue = (min(255, max(0, part + draw.randint(-JITTER, JITTER))) for part in BACKGROUNDS[name])
    return red, green, blue


def colour_name(rgb: Rgb) -> str:
    hue, saturation, value = _hsv(rgb)
    if value < DARK:
        return "black"
    if saturation < LEAST_SATURATION:
        return "white" if value > BRIGHT else "grey"
    degrees = hue * 360
    name = next((name for name, end in HUES if degrees < end), "red")
    return "brown" if name in ("red", "orange") and value < 0.68 and degrees < 41 else name


def colours_of(drawing: Image.Image) -> dict[str, float]:
    """The shares of the named colours among what is seen of an RGBA drawing, the largest first."""
    seen = _seen(drawing)
    counts = Counter(map(colour_name, seen))
    return {name: count / len(seen) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


def turned_to(drawing: Image.Image, wanted: str) -> Image.Image | None:
    """The drawing with all hues turned so that what mostly has one colour gets the wanted one; None where nothing does,
    where it has it already, and where something else comes of it, as brown of a dark orange."""
    largest = next((name for name in colours_of(drawing) if name in CENTRES), None)
    if largest in (None, wanted) or colours_of(drawing)[largest] < SHARE_TO_TURN:
        return None
    hues = [cmath.rect(1, math.tau * _hsv(rgb)[0]) for rgb in _seen(drawing) if colour_name(rgb) == largest]
    turned = turn_drawing(drawing, CENTRES[wanted] - math.degrees(cmath.phase(sum(hues))))
    return turned if next(iter(colours_of(turned))) == wanted else None


def _seen(drawing: Image.Image) -> list[Rgb]:
    """The colours of a small version of the drawing where it is not transparent."""
    pixels = np.asarray(drawing.convert("RGBA").resize((LOOKED_AT_PX, LOOKED_AT_PX), Image.Resampling.BOX))
    return [(int(red), int(green), int(blue)) for red, green, blue, alpha in pixels.reshape(-1, 4) if alpha > OPAQUE]


def _hsv(rgb: Rgb) -> tuple[float, float, float]:
    return colorsys.rgb_to_hsv(*(part / 255 for part in rgb))
