"""Shifts and turns of pictures that are known everywhere: sums of waves, drawn where a generator would draw them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lora_trainer.losses.equivariance import EQUIVARIANCES, Motion, decibels
from lora_trainer.losses.image_motion import (
    LANCZOS,
    REACH,
    band_limit,
    lanczos_shift,
    shifted,
    shifted_by_pixels,
    turned,
)

SIDE = 48


def picture(motion: Motion, highest: float = 0.25) -> Tensor:
    """Waves of up to `highest` cycles a pixel, drawn at the places that the transform gives; (1, 2, side, side)."""
    draws = torch.Generator().manual_seed(1)
    waves = (torch.rand(2, 12, 2, generator=draws).double() - 0.5) * 2 * highest * SIDE
    phases = torch.rand(2, 12, generator=draws).double() * 2 * math.pi
    line = (torch.arange(SIDE).double() + 0.5) / SIDE - 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], 2) @ motion.transform.t()
    angles = torch.einsum("hwi,cfi->chwf", places[..., :2], waves) * 2 * math.pi + phases[:, None, None]
    return (angles.sin().sum(-1) / 12)[None]


def error_db(kind: str, motion: Motion, drawn: Motion, highest: float = 0.25) -> float:
    still, moved = picture(Motion(), highest), picture(drawn, highest)
    squares, count = EQUIVARIANCES[kind].squares(still, moved, motion)
    return decibels(float(squares), float(count))


def test_whole_pixels_are_exact() -> None:
    motion = Motion(3 / SIDE, -5 / SIDE)
    assert error_db("eqt_int", motion, motion) > 250
    assert error_db("eqt_int", motion, Motion(-3 / SIDE, 5 / SIDE)) < 30


def test_parts_of_a_pixel() -> None:
    motion = Motion(0.0731, -0.0519)
    assert error_db("eqt_frac", motion, motion) > 45
    assert error_db("eqt_frac", motion, motion, highest=0.1) > 60
    assert error_db("eqt_frac", motion, Motion(0.0731, 0.0519)) < 30


@pytest.mark.parametrize("angle", [0.4, -2.5, math.pi / 2, math.pi])
def test_turning(angle: float) -> None:
    motion = Motion(angle=angle)
    assert error_db("eqr", motion, motion, highest=0.15) > 50
    assert error_db("eqr", motion, Motion(angle=-angle + 0.5), highest=0.15) < 30


def test_turning_keeps_the_frequencies_that_both_grids_hold() -> None:
    """A wave in the corner of the old square of frequencies lies outside of the new one: gone after an eighth."""
    line = torch.arange(64).double()
    for cycles, kept in ((0.42, False), (0.2, True)):
        wave = torch.cos(2 * math.pi * cycles * (line[:, None] + line))[None, None]
        left = turned(wave, math.pi / 4)[0][0, 0, 20:44, 20:44].abs().max()
        assert (float(left) > 0.8) is kept
        assert (float(left) < 0.2) is not kept


def test_masks_show_what_follows_from_the_picture_alone() -> None:
    moved, mask = shifted_by_pixels(torch.ones(1, 1, 6, 8), 2, -1)
    assert mask[0, 0].sum(1).tolist() == [6, 6, 6, 6, 6, 0]
    assert mask[0, 0].sum(0).tolist() == [0, 0, 5, 5, 5, 5, 5, 5]
    assert torch.equal(moved, mask)
    _, line = lanczos_shift(20, 1.5)
    reach = LANCZOS
    assert line.tolist() == [float(reach - 1 <= place - 2 <= 20 - reach - 1) for place in range(20)]
    _, mask = turned(torch.ones(1, 1, 40, 40), 0.0)
    assert mask[0, 0, 20].tolist() == [float(REACH <= place < 40 - REACH) for place in range(40)]


def test_nothing_becomes_brighter() -> None:
    image = torch.full((1, 1, 40, 40), 0.75).double()
    for moved, mask in (shifted(image, 0.03, 0.04), turned(image, 1.0)):
        inside = moved[mask.expand_as(moved) > 0]
        assert len(inside) > 300
        torch.testing.assert_close(inside, torch.full_like(inside, 0.75), rtol=0, atol=1e-9)
    for up in (1, 4):
        taps = band_limit(0.3, up)
        sums = torch.nn.functional.pad(taps, (1, 0, 1, 0)).view(2 * REACH, up, 2 * REACH, up).sum((0, 2))
        torch.testing.assert_close(sums, torch.ones(up, up).double())


def test_draws_stay_in_their_bounds() -> None:
    assert EQUIVARIANCES["eqt_int"].draw((1.0, -0.51), 32) == Motion(4 / 32, -2 / 32)
    assert EQUIVARIANCES["eqt_frac"].draw((1.0, -0.5), 32) == Motion(0.125, -0.0625)
    assert EQUIVARIANCES["eqr"].draw((-0.5, 0.3), 32) == Motion(angle=-math.pi / 2)


def test_decibels() -> None:
    assert decibels(4.0, 1.0) == pytest.approx(0)
    assert decibels(0.04, 1.0) == pytest.approx(20)
    assert decibels(0.0, 5.0) == math.inf
    assert math.isnan(decibels(0.0, 0.0))
