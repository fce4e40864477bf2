"""sd-scripts' color_aug: a third of the pictures gets another hue or another gamma."""

from __future__ import annotations

import numpy as np
from PIL import Image

from lora_trainer.data.images import Pixels
from lora_trainer.draws import python_random

PROBABILITY = 0.33
HUE_DEGREES = 16.0  # either way; OpenCV's 8 of 180
GAMMA = (0.95, 1.05)


def shift_colours(pixels: Pixels, *key: int | str) -> Pixels:
    """(h, w, 3) RGB as it is, or with its hue turned, or with its gamma changed, as a function of the key."""
    draw = python_random(*key)
    if draw.random() >= PROBABILITY:
        return pixels
    if draw.random() < 0.5:
        return turn_hue(pixels, draw.uniform(-HUE_DEGREES, HUE_DEGREES))
    return change_gamma(pixels, draw.uniform(*GAMMA))


def turn_hue(pixels: Pixels, degrees: float) -> Pixels:
    hue, saturation, value = Image.fromarray(pixels).convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int16) + round(degrees / 360 * 256)) % 256
    hue = Image.fromarray(turned.astype(np.uint8))
    return np.array(Image.merge("HSV", (hue, saturation, value)).convert("RGB"))


def change_gamma(pixels: Pixels, gamma: float) -> Pixels:
    table = np.round((np.arange(256) / 255) ** gamma * 255).astype(np.uint8)
    changed: Pixels = table[pixels]
    return changed
