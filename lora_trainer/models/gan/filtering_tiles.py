"""Tiles of a filtered leaky ReLU: what each reads, and the blocks of the banded matrices that are the same for all.

A tile goes from the source over its middle, at the high rate, to the result; in the backward pass the source is the
result's gradient, and the filters change places.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lora_trainer.models.gan.filtering import AxisPlan, Plan, band

MIDDLE = 64  # samples of a tile's side at the high rate
LEAST = 16  # of a side of a product


@dataclass(frozen=True)
class Leg:
    """The first pass along one axis for the middle samples of a tile: sample `first + tile * stride` is the first of
    `length` that it reads."""

    plan: AxisPlan
    first: int
    stride: int
    length: int


@dataclass(frozen=True)
class Tiling:
    """Along one axis: tiles of `step` results, of which tile 0 has its middle begin at sample `middle`."""

    second: AxisPlan
    step: int
    middle: int

    @staticmethod
    @lru_cache(maxsize=1024)
    def of(second: AxisPlan, *firsts: AxisPlan) -> Tiling | None:
        """None where no tile fits: the next one must begin at the same phase of every first pass."""
        step = (MIDDLE - len(second.taps)) // second.down + 1
        while step > 0 and any(step * second.down % first.up for first in firsts):
            step -= 1
        fits = second.up == 1 and step > 0 and all(first.down == 1 for first in firsts)
        return Tiling(second, step, -second.front) if fits else None

    def leg(self, plan: AxisPlan) -> Leg:
        """What the first pass `plan` reads for the middle of a tile."""
        taps, last = len(plan.taps), self.middle + MIDDLE - 1
        first = -((plan.front - self.middle) // plan.up)
        end = (last + taps - 1 - plan.front) // plan.up
        return Leg(plan, first, self.step * self.second.down // plan.up, _power(end - first + 1))

    @property
    def side(self) -> int:
        """Of a tile's result."""
        return _power(self.step)

    @property
    def tiles(self) -> int:
        """How many there are."""
        return -(-self.second.out_size // self.step)


def has_tiles(up: Plan, down: Plan) -> bool:
    """Whether there is one pair of passes up and one down that does not pad, and a tile of them that fits."""
    if len(up.pairs) != 1 or len(down.pairs) != 1:
        return False
    for plan in (up, down):
        vertical, horizontal = plan.pairs[0]
        if _shape(vertical) != _shape(horizontal):
            return False
    if any(axis.front or (axis.out_size - 1) * axis.down + len(axis.taps) > axis.in_size for axis in down.pairs[0]):
        return False  # it would read beyond the image at the high rate, which a tile does not know to be zero there
    raised, lowered = up.pairs[0][0], down.pairs[0][0]
    return bool(Tiling.of(lowered, raised) and Tiling.of(raised.adjoint(), lowered.adjoint(), raised))


def _shape(plan: AxisPlan) -> tuple[int, int, int]:
    """Which tiles go with it."""
    return len(plan.taps), plan.up, plan.down


@dataclass(frozen=True)
class Blocks:
    """What a kernel is given beside images: blocks of the banded matrices in the images' format, and the grid.

    Images are `like` this tensor, and a program works on `at_once` of them.
    """

    tilings: tuple[Tiling, Tiling]  # vertical, horizontal
    like: Tensor
    at_once: int

    @property
    def count(self) -> int:
        return self.like.shape[:-2].numel()

    @property
    def grid(self) -> tuple[int, int]:
        vertical, horizontal = self.tilings
        return vertical.tiles * horizontal.tiles, -(-self.count // self.at_once)

    def legs(self, plans: tuple[AxisPlan, AxisPlan]) -> tuple[tuple[Leg, Leg], int]:
        """Those of both axes, and how many samples a tile reads along either."""
        vertical, horizontal = (tiling.leg(plan) for tiling, plan in zip(self.tilings, plans, strict=True))
        return (vertical, horizontal), max(vertical.length, horizontal.length)

    def raising(self, legs: tuple[Leg, Leg], length: int) -> tuple[Tensor, Tensor]:
        """(middle, length) for the rows, and (length, middle) for the columns."""
        left, right = (
            _block(leg.plan, tiling.middle, MIDDLE, leg.first, length, turned, self.like.dtype, self.like.device)
            for leg, tiling, turned in zip(legs, self.tilings, (False, True), strict=True)
        )
        return left, right

    def lowering(self) -> tuple[Tensor, Tensor]:
        """(writes, middle) for the rows, and (middle, writes) for the columns."""
        left, right = (
            _block(tiling.second, 0, tiling.side, tiling.middle, MIDDLE, turned, self.like.dtype, self.like.device)
            for tiling, turned in zip(self.tilings, (False, True), strict=True)
        )
        return left, right


@lru_cache(maxsize=512)
def _block(
    plan: AxisPlan, first_output: int, outputs: int, first_input: int, inputs: int,
    turned: bool, dtype: torch.dtype, device: torch.device,
) -> Tensor:  # fmt: skip
    with torch.inference_mode(False):
        rows = torch.arange(first_output, first_output + outputs, device="cpu")
        columns = torch.arange(first_input, first_input + inputs, device="cpu")
        block = band(plan, rows, columns)
        return (block.t() if turned else block).contiguous().to(device, dtype)


def tilings_of(second: Plan, *firsts: Plan) -> tuple[Tiling, Tiling]:
    """Vertical and horizontal, for plans that have tiles."""
    vertical, horizontal = (
        Tiling.of(lowered, *raised)
        for lowered, *raised in zip(second.pairs[0], *(first.pairs[0] for first in firsts), strict=True)
    )
    assert vertical is not None
    assert horizontal is not None
    return vertical, horizontal


def _power(samples: int) -> int:
    return max(LEAST, 1 << (samples - 1).bit_length())
