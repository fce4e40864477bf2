"""Sizes are those that were asked for, and what is added at the border is cut off again."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lora_trainer.models.restoration.sizes import cropped, padded, resized, wanted_size, working_size


@pytest.mark.parametrize(
    ("factor", "longest", "expected"),
    [(4.0, 0, (400, 600)), (1.0, 0, (100, 150)), (1.5, 0, (150, 225)), (4.0, 600, (400, 600)), (1.0, 75, (50, 75))],
)
def test_a_factor_or_a_longest_side(factor: float, longest: int, expected: tuple[int, int]) -> None:
    assert wanted_size((100, 150), factor=factor, longest_px=longest) == expected


def test_a_line_keeps_a_pixel() -> None:
    assert wanted_size((1, 900), longest_px=90) == (1, 90)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 512), (512, 512)), ((600, 700), (600, 700)), ((256, 512), (512, 1024)), ((400, 300), (683, 512))],
)
def test_small_pictures_grow_in_proportion(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert working_size(size, 512) == expected


def test_the_border_is_repeated_and_cut_off() -> None:
    image = torch.arange(6.0).view(1, 1, 2, 3)
    larger = padded(image, 4)
    assert larger[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    assert torch.equal(cropped(larger, (2, 3)), image)
    even = torch.rand(1, 3, 8, 16)
    assert padded(even, 8) is even


def test_resizing_is_bicubic_and_smooths_what_gets_smaller() -> None:
    image = torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    larger = F.interpolate(image, size=(24, 20), mode="bicubic", align_corners=False)
    assert torch.equal(resized(image, (24, 20)), larger)
    assert resized(image, (12, 10)) is image
    stripes = torch.tensor([0.0, 1.0]).repeat(16).expand(1, 1, 32, 32)
    assert float(resized(stripes, (8, 8)).std()) < 0.05
    torch.testing.assert_close(resized(stripes, (8, 8)).mean(), torch.tensor(0.5), rtol=0, atol=0.01)
