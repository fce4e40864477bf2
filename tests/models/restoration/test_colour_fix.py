"""The colour fix keeps details, takes colours, and is the wavelet transform that it says it is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.models.restoration.colour_fix import low_frequencies, with_colours_of

KERNEL = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16


def pictures() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    restored, degraded = (torch.rand(2, 3, 70, 90, generator=generator) for _ in range(2))
    return restored, degraded


def transform(image: Tensor, levels: int) -> tuple[list[Tensor], Tensor]:
    """The details of every level, and what is left, with the kernel in two dimensions."""
    details = []
    weight = KERNEL.expand(image.shape[1], 1, 3, 3)
    for level in range(levels):
        apart = 2**level
        framed = F.pad(image, (apart,) * 4, mode="replicate")
        smooth = F.conv2d(framed, weight, dilation=apart, groups=image.shape[1])
        details.append(image - smooth)
        image = smooth
    return details, image


def test_one_level_by_hand() -> None:
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 2] = 16
    assert low_frequencies(image, 1)[0, 0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    corner = torch.zeros(1, 1, 5, 5)
    corner[0, 0, 0, 0] = 16  # its neighbours outside are repeated: 4 + 2 + 2 + 1
    assert low_frequencies(corner, 1)[0, 0, :2, :2].tolist() == [[9, 3], [3, 1]]


def test_the_second_level_reaches_two_pixels_far() -> None:
    image = torch.zeros(1, 1, 1, 13)
    image[..., 6] = 16
    assert low_frequencies(image, 2).flatten().tolist() == [0, 0, 0, 1, 2, 3, 4, 3, 2, 1, 0, 0, 0]


@pytest.mark.parametrize("levels", [1, 5])
def test_details_of_one_and_the_rest_of_the_other(levels: int) -> None:
    restored, degraded = pictures()
    details, _ = transform(restored, levels)
    _, rest = transform(degraded, levels)
    expected = torch.stack(details).sum(0) + rest
    torch.testing.assert_close(with_colours_of(restored, degraded, levels), expected, rtol=0, atol=2e-6)


def test_a_shift_of_colour_is_taken_back() -> None:
    restored, _ = pictures()
    shifted = restored + torch.tensor([0.2, -0.1, 0.05]).view(1, 3, 1, 1)
    torch.testing.assert_close(with_colours_of(shifted, restored), restored, rtol=0, atol=1e-6)


def test_equal_pictures_stay_and_flat_ones_take_the_colour() -> None:
    restored, degraded = pictures()
    assert torch.equal(with_colours_of(restored, restored), restored)
    flat = with_colours_of(torch.full_like(degraded, 0.3), torch.full_like(degraded, 0.8))
    torch.testing.assert_close(flat, torch.full_like(degraded, 0.8))


def test_pictures_smaller_than_the_widest_kernel_are_taken() -> None:
    restored, degraded = (each[..., :7, :3] for each in pictures())
    details, rest = transform(degraded, 5)
    torch.testing.assert_close(low_frequencies(degraded), rest, rtol=0, atol=1e-6)
    assert with_colours_of(restored, degraded).shape == restored.shape
    assert len(details) == 5
