"""Blended tiles are what the network makes of the whole, and where they are not, no seam shows."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.models.restoration.tiles import (
    PUBLISHED,
    WHOLE,
    Tiling,
    in_tiles,
    refuse_tiling,
    tile_starts,
    tile_weights,
)


@pytest.mark.parametrize(
    ("length", "starts"),
    [(10, (0,)), (64, (0,)), (65, (0, 1)), (96, (0, 32)), (100, (0, 32, 36)), (128, (0, 32, 64))],
)
def test_the_last_tile_ends_flush(length: int, starts: tuple[int, ...]) -> None:
    assert tile_starts(length, 64, 32) == starts


def test_weights_by_hand() -> None:
    """exp(-d^2 / (25 * 2 * 0.01)) at the distance d from the middle."""
    side = [math.exp(-8), math.exp(-2), 1.0, math.exp(-2), math.exp(-8)]
    torch.testing.assert_close(tile_weights(5, 5), torch.outer(torch.tensor(side), torch.tensor(side)))
    rows = [math.exp(-(distance**2) * 2) for distance in (2.5, 1.5, 0.5, 0.5, 1.5)]
    torch.testing.assert_close(tile_weights(5, 5, PUBLISHED), torch.outer(torch.tensor(rows), torch.tensor(side)))
    assert float(tile_weights(512, 512).min()) > 0


def test_two_tiles_are_blended_as_worked_out_by_hand() -> None:
    """Columns 2 and 3 lie in both; the weights of a tile's columns are exp(-2.25 / 0.32) and exp(-0.25 / 0.32)."""
    numbers = iter((0.0, 1.0))
    blended = in_tiles(lambda tile: torch.full_like(tile, next(numbers)), torch.zeros(1, 1, 1, 6), Tiling(4, 2))
    share = 1 / (1 + math.exp(6.25))
    assert blended.flatten().tolist() == pytest.approx([0, 0, share, 1 - share, 1, 1], abs=1e-6)


def largest_step(values: Tensor) -> float:
    return max(float(values.diff(dim=axis).abs().max()) for axis in (-1, -2))


@pytest.mark.parametrize("size", [(100, 150), (64, 97), (40, 200), (65, 65)])
@pytest.mark.parametrize("window", ["centred", "published"])
def test_weights_add_up_to_one(size: tuple[int, int], window: str) -> None:
    blended = in_tiles(torch.ones_like, torch.zeros(1, 2, *size), Tiling(64, 32, window))
    torch.testing.assert_close(blended, torch.ones(1, 2, *size), rtol=0, atol=1e-6)


def test_a_network_that_looks_at_single_pixels_gives_the_whole_picture() -> None:
    image = torch.randn(2, 3, 75, 101, generator=torch.Generator().manual_seed(0))
    for tiling in (Tiling(32, 16), Tiling(32, 32), Tiling(30, 7)):
        blended = in_tiles(lambda tile: tile.sin()[:, :2], image, tiling)
        torch.testing.assert_close(blended, image.sin()[:, :2], rtol=0, atol=1e-6)


def test_a_network_may_make_its_picture_smaller_or_larger() -> None:
    image = torch.randn(1, 3, 104, 168, generator=torch.Generator().manual_seed(0))
    smaller = in_tiles(lambda tile: F.avg_pool2d(tile, 8), image, Tiling(64, 32), Fraction(1, 8))
    torch.testing.assert_close(smaller, F.avg_pool2d(image, 8), rtol=0, atol=1e-6)
    larger = in_tiles(lambda tile: F.interpolate(tile, scale_factor=8), smaller, Tiling(64, 32).divided(8), 8)
    torch.testing.assert_close(larger, F.interpolate(smaller, scale_factor=8), rtol=0, atol=1e-6)


def test_a_network_that_looks_further_differs_only_where_tiles_begin() -> None:
    image = torch.randn(1, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    kernel = torch.full((1, 1, 5, 5), 1 / 25)

    def smooth(tile: Tensor) -> Tensor:
        return F.conv2d(tile, kernel, padding=2)

    wrong = (in_tiles(smooth, image, Tiling(64, 32)) - smooth(image)).abs()
    assert float(wrong.max()) < 5e-4
    assert float((in_tiles(smooth, image, Tiling(32, 32)) - smooth(image)).abs().max()) > 0.1


def test_where_tiles_disagree_no_seam_shows() -> None:
    """The steepest slope between two tiles that differ by 1 is stride / (tile^2 * 0.04)."""
    numbers = iter([0.0, 1.0, 0.0])
    blended = in_tiles(lambda tile: torch.full_like(tile, next(numbers)), torch.zeros(1, 1, 64, 128), Tiling(64, 32))
    assert largest_step(blended) == pytest.approx(32 / (64**2 * 0.04), rel=0.02)
    numbers = iter([0.0, 1.0])
    cut = in_tiles(lambda tile: torch.full_like(tile, next(numbers)), torch.zeros(1, 1, 64, 128), Tiling(64, 64))
    assert largest_step(cut) == 1


def test_several_tiles_at_once_give_the_same() -> None:
    image = torch.randn(2, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    batches: list[int] = []

    def network(tile: Tensor) -> Tensor:
        batches.append(len(tile))
        return tile - tile.mean((1, 2, 3), keepdim=True)

    alone = in_tiles(network, image, Tiling(32, 16))
    assert set(batches) == {2}
    together = in_tiles(network, image, Tiling(32, 16), at_once=4)
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)
    assert (max(batches), sum(batches)) == (8, 2 * 2 * len(tile_starts(70, 32, 16)) * len(tile_starts(90, 32, 16)))


@pytest.mark.parametrize("tiling", [WHOLE, Tiling(128, 64)])
def test_a_small_picture_goes_through_as_it_is(tiling: Tiling) -> None:
    seen: list[tuple[int, ...]] = []

    def network(tile: Tensor) -> Tensor:
        seen.append(tuple(tile.shape))
        return tile * 2

    image = torch.rand(1, 3, 50, 70)
    assert torch.equal(in_tiles(network, image, tiling), image * 2)
    assert seen == [(1, 3, 50, 70)]


def test_the_type_is_the_networks_and_sums_are_exact() -> None:
    image = torch.rand(1, 3, 80, 80)
    blended = in_tiles(lambda tile: tile.bfloat16(), image, Tiling(32, 16))
    assert blended.dtype == torch.bfloat16
    torch.testing.assert_close(blended, image.bfloat16(), rtol=0.008, atol=0)


def test_tiles_between_latents_are_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match=r"^12 pixels are 1\.5 in the result; sizes and strides must be multiples$"):
        in_tiles(lambda tile: F.avg_pool2d(tile, 8), torch.zeros(1, 1, 64, 64), Tiling(32, 12), Fraction(1, 8))


@pytest.mark.parametrize(
    ("tiling", "said"),
    [
        (Tiling(512, 0), "--stride: tiles of 512 pixels cannot be 0 apart; write 1 to 512, best 256"),
        (Tiling(512, 600), "--stride: tiles of 512 pixels cannot be 600 apart; write 1 to 512, best 256"),
        (Tiling(500, 256), "--tile: 500 is no multiple of 8; write 496"),
        (Tiling(512, 3), "--stride: 3 is no multiple of 8; write 8"),
    ],
)
def test_tiles_that_cannot_be_are_refused(tiling: Tiling, said: str) -> None:
    refuse_tiling(Tiling(512, 256), 8, "--tile", "--stride")
    refuse_tiling(WHOLE, 8, "--tile", "--stride")
    with pytest.raises(Refusal) as refusal:
        refuse_tiling(tiling, 8, "--tile", "--stride")
    assert str(refusal.value) == said
