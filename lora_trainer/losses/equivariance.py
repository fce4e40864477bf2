"""How well a generator's images follow when its input is shifted or turned: EQ-T and EQ-R (Karras et al. 2021).

Images are (b, c, h, w) from -1 to 1. `transform` is the 3 x 3 matrix that a StyleGAN3's Fourier input takes, from
places of the picture, in units of its side from the centre, to places of the waves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_trainer.losses.image_motion import band_limited_as_if_turned, shifted, shifted_by_pixels, turned

GREATEST_SHIFT = 0.125  # of the side
PEAK = 2.0  # from -1 to 1


@dataclass(frozen=True)
class Motion:
    """A shift in parts of the side, and an angle in radians."""

    right: float = 0.0
    down: float = 0.0
    angle: float = 0.0

    @property
    def transform(self) -> Tensor:
        """(3, 3)"""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        rows = [[cosine, sine, -self.right], [-sine, cosine, -self.down], [0.0, 0.0, 1.0]]
        return torch.tensor(rows, dtype=torch.float64)


@dataclass(frozen=True)
class Equivariance:
    """`draw(parts, side)` makes a motion of numbers from -1 to 1 for images of that side.

    `squares(still, moved, motion)` gives the sum of the squared errors of the moved images, and over how many values.
    """

    draw: Callable[[tuple[float, float], int], Motion]
    squares: Callable[[Tensor, Tensor, Motion], tuple[Tensor, Tensor]]


def _whole_pixels(parts: tuple[float, float], side: int) -> Motion:
    right, down = (round(part * GREATEST_SHIFT * side) / side for part in parts)
    return Motion(right, down)


def _any_shift(parts: tuple[float, float], side: int) -> Motion:
    return Motion(parts[0] * GREATEST_SHIFT, parts[1] * GREATEST_SHIFT)


def _any_angle(parts: tuple[float, float], side: int) -> Motion:
    return Motion(angle=parts[0] * math.pi)


def _after_whole_pixels(still: Tensor, moved: Tensor, motion: Motion) -> tuple[Tensor, Tensor]:
    height, width = still.shape[2:]
    wanted, mask = shifted_by_pixels(still, round(motion.right * width), round(motion.down * height))
    return _errors(moved, wanted, mask)


def _after_any_shift(still: Tensor, moved: Tensor, motion: Motion) -> tuple[Tensor, Tensor]:
    return _errors(moved, *shifted(still, motion.right, motion.down))


def _after_turning(still: Tensor, moved: Tensor, motion: Motion) -> tuple[Tensor, Tensor]:
    wanted, mask = turned(still, motion.angle)
    seen, other_mask = band_limited_as_if_turned(moved, motion.angle)
    return _errors(seen, wanted, mask * other_mask)


def _errors(images: Tensor, wanted: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    squares = (images - wanted).double().square() * mask
    return squares.sum(), mask.double().sum() * (images.shape[0] * images.shape[1])


EQUIVARIANCES: Mapping[str, Equivariance] = {
    "eqt_int": Equivariance(_whole_pixels, _after_whole_pixels),
    "eqt_frac": Equivariance(_any_shift, _after_any_shift),
    "eqr": Equivariance(_any_angle, _after_turning),
}


def decibels(squares: float, count: float) -> float:
    """The peak signal to noise ratio; infinite without error, NaN where nothing was compared."""
    if not count:
        return math.nan
    return 20 * math.log10(PEAK) - 10 * math.log10(squares / count) if squares else math.inf
