"""Resizing against a plain loop of MATLAB's imresize and against PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lora_trainer.data.resize import MODES, bicubic, downscale_lq, interpolate, resize, to_eight_bits


def cubic(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0


def matlab(line: np.ndarray, after: int, kernel: Callable[[float], float], width: float) -> np.ndarray:
    """imresize of a line: for each result, the weighted neighbours, mirrored beyond the border."""
    scale = after / len(line)
    shrink = min(1.0, scale)
    found = []
    for index in range(after):
        centre = (index + 1) / scale + 0.5 * (1 - 1 / scale)  # MATLAB counts from 1
        first = math.floor(centre - width / shrink / 2)
        total = value = 0.0
        for place in range(first, first + math.ceil(width / shrink) + 2):
            weight = shrink * kernel(shrink * (centre - place))
            mirrored = (place - 1) % (2 * len(line))
            mirrored = mirrored if mirrored < len(line) else 2 * len(line) - 1 - mirrored
            value += weight * line[mirrored]
            total += weight
        found.append(value / total)
    return np.array(found)


@pytest.mark.parametrize(("before", "after"), [(32, 16), (30, 10), (16, 64), (25, 17), (9, 4)])
def test_bicubic_is_matlabs_border_included(before: int, after: int) -> None:
    line = np.random.default_rng(before).random(before)
    image = torch.from_numpy(line).float()[None, None, None].expand(1, 1, 8, before)
    found = bicubic(image, (8, after))[0, 0, 3].numpy()
    np.testing.assert_allclose(found, matlab(line, after, cubic, 4), atol=2e-6)


def test_both_axes_and_every_channel() -> None:
    image = torch.rand(2, 3, 20, 31)
    found = bicubic(image, (10, 15))
    columns = np.stack([matlab(column, 10, cubic, 4) for column in image[1, 2].numpy().T], 1)
    wanted = np.stack([matlab(row, 15, cubic, 4) for row in columns])
    np.testing.assert_allclose(found[1, 2].numpy(), wanted, atol=3e-6)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_pytorch_agrees_within_the_picture(mode: str) -> None:
    image = torch.rand(1, 3, 64, 64)
    theirs = F.interpolate(image, (32, 32), mode=mode, antialias=True, align_corners=False)
    torch.testing.assert_close(
        resize(image, (32, 32), mode)[..., 4:-4, 4:-4], theirs[..., 4:-4, 4:-4], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("change", [resize, interpolate])
def test_flat_pictures_stay_flat_and_sizes_are_right(mode: str, change: Callable[..., torch.Tensor]) -> None:
    found = change(torch.full((2, 3, 21, 34), 0.3), (13, 50), mode)
    assert found.shape == (2, 3, 13, 50)
    torch.testing.assert_close(found, torch.full_like(found, 0.3))


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_does_not_depend_on_its_neighbours(mode: str) -> None:
    images = torch.rand(3, 3, 33, 20)
    together = interpolate(images, (17, 29), mode)
    assert torch.equal(together[1:2], interpolate(images[1:2], (17, 29), mode))


def test_the_low_resolution_has_eight_bits_and_no_overshoot() -> None:
    image = (torch.rand(1, 3, 32, 32) > 0.5).float()
    found = downscale_lq(image, 4)
    assert found.shape == (1, 3, 8, 8)
    assert torch.equal(found, to_eight_bits(found))
    assert torch.equal(to_eight_bits(torch.tensor([-1.0, 0.5, 2.0])), torch.tensor([0.0, 128 / 255, 1.0]))


def test_an_unknown_mode() -> None:
    with pytest.raises(ValueError, match="no way of resizing bicubik; there is bicubic, bilinear"):
        resize(torch.rand(1, 3, 8, 8), (4, 4), "bicubik")
