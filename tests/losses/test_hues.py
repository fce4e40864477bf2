"""The share of a colour in a picture, against colorsys."""

from __future__ import annotations

import colorsys

import pytest
import torch

from lora_trainer.draws import torch_generator
from lora_trainer.losses.hues import HUES, LEAST_SATURATION, LEAST_VALUE, share_of


@pytest.mark.parametrize("hue", HUES)
def test_as_by_colorsys(hue: str) -> None:
    image = torch.rand(2, 3, 30, 30, dtype=torch.float64, generator=torch_generator("colours"))
    low, high = HUES[hue]
    for one, share in zip(image, share_of(image, hue), strict=True):
        pixels = [colorsys.rgb_to_hsv(*pixel) for pixel in one.flatten(1).T.tolist()]
        seen = [low <= 360 * h < high and s >= LEAST_SATURATION and v >= LEAST_VALUE for h, s, v in pixels]
        assert share.item() == pytest.approx(sum(seen) / len(seen))


@pytest.mark.parametrize(
    ("colour", "green", "purple"),
    [
        ((0.1, 0.6, 0.1), 1, 0),  # a leaf
        ((0.5, 0.0, 0.5), 0, 1),  # purple
        ((0.4, 0.2, 0.8), 0, 1),  # violet
        ((0.9, 0.1, 0.1), 0, 0),
        ((0.1, 0.1, 0.9), 0, 0),
        ((0.5, 0.5, 0.5), 0, 0),
        ((0.0, 0.1, 0.0), 0, 0),  # too dark to be seen
        ((0.8, 0.9, 0.8), 0, 0),  # too pale
    ],
)
def test_colours_that_have_names(colour: tuple[float, float, float], green: int, purple: int) -> None:
    image = torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert (share_of(image, "green").item(), share_of(image, "purple").item()) == (green, purple)
