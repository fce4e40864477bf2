"""color_aug: how often, how far, and the same for the same key."""

from __future__ import annotations

import colorsys

import numpy as np

from lora_trainer.data.color_augmentation import change_gamma, shift_colours, turn_hue

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def test_a_third_is_changed_half_by_hue_and_half_by_gamma() -> None:
    changed = hue = 0
    for number in range(600):
        result = shift_colours(PIXELS, 1, number, "colours")
        assert np.array_equal(result, shift_colours(PIXELS, 1, number, "colours"))
        if not np.array_equal(result, PIXELS):
            changed += 1
            keeps_order = np.argsort(PIXELS.ravel(), kind="stable")
            hue += bool((np.diff(result.ravel()[keeps_order].astype(int)) < 0).any())  # gamma never does that
    assert 150 < changed < 250
    assert 0.35 < hue / changed < 0.65


def test_the_hue_turns_by_so_many_degrees() -> None:
    red = np.full((1, 1, 3), (200, 40, 40), np.uint8)
    for degrees in (-16, 16):
        turned = turn_hue(red, degrees)[0, 0] / 255
        hue, saturation, value = colorsys.rgb_to_hsv(*turned)
        assert abs((hue * 360 - degrees + 180) % 360 - 180) < 2
        assert abs(saturation - 0.8) < 0.02
        assert abs(value - 200 / 255) < 0.01


def test_gamma_is_a_power_of_the_brightness() -> None:
    expected = np.round((PIXELS / 255.0) ** 0.95 * 255)
    assert np.array_equal(change_gamma(PIXELS, 0.95), expected)
