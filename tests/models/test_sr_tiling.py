"""Tiles show no seams where the network looks no farther than their overlap, and any size is taken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lora_trainer.models.sr_tiling import upscale_tiled


@pytest.fixture
def network() -> nn.Module:
    """It looks four pixels far and doubles the size."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 5, 1, 2), nn.ReLU(), nn.Conv2d(8, 12, 5, 1, 2), nn.PixelShuffle(2))


@pytest.mark.parametrize(("tile", "overlap"), [(16, 4), (7, 5), (100, 4)])
def test_tiles_make_the_picture_of_the_whole(network: nn.Module, tile: int, overlap: int) -> None:
    image = torch.rand(2, 3, 37, 29)
    whole = upscale_tiled(network, image, 2)
    tiled = upscale_tiled(network, image, 2, tile_px=tile, overlap_px=overlap)
    assert tiled.shape == (2, 3, 74, 58)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-6)


def test_too_small_an_overlap_shows(network: nn.Module) -> None:
    image = torch.rand(1, 3, 37, 29)
    tiled = upscale_tiled(network, image, 2, tile_px=16, overlap_px=0)
    assert (tiled - upscale_tiled(network, image, 2)).abs().max() > 1e-3


@pytest.mark.parametrize(("sides", "wanted"), [((37, 29), (40, 32)), ((5, 3), (16, 16)), ((16, 24), (16, 24))])
def test_the_network_gets_sizes_that_it_takes(sides: tuple[int, int], wanted: tuple[int, int]) -> None:
    seen: list[tuple[int, ...]] = []

    def enlarge(image: Tensor) -> Tensor:
        seen.append(tuple(image.shape[-2:]))
        return image.repeat_interleave(3, -1).repeat_interleave(3, -2)

    image = torch.rand(1, 3, *sides)
    result = upscale_tiled(enlarge, image, 3, multiple=8, minimum_px=16)
    assert seen == [wanted]
    assert torch.equal(result, image.repeat_interleave(3, -1).repeat_interleave(3, -2))


def test_tiles_lie_on_the_multiples_that_a_network_unshuffles() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 48, 3, 1, 1), nn.PixelShuffle(4))
    image = torch.rand(1, 3, 37, 53)
    whole = upscale_tiled(network, image, 1, multiple=4)
    for tile, overlap in ((10, 8), (13, 9), (4, 8)):
        tiled = upscale_tiled(network, image, 1, tile_px=tile, overlap_px=overlap, multiple=4)
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-6)


def test_the_last_tile_sees_real_pixels_up_to_the_least_size(network: nn.Module) -> None:
    seen: list[tuple[int, ...]] = []

    def enlarge(image: Tensor) -> Tensor:
        seen.append(tuple(image.shape[-2:]))
        return network(image)

    image = torch.rand(1, 3, 33, 33)
    tiled = upscale_tiled(enlarge, image, 2, tile_px=32, overlap_px=4, minimum_px=16)
    assert seen == [(33, 33), (33, 16), (16, 33), (16, 16)]
    torch.testing.assert_close(tiled, upscale_tiled(network, image, 2), rtol=0, atol=1e-6)


def test_the_result_is_of_the_type_that_the_module_gives(network: nn.Module) -> None:
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    result = upscale_tiled(lambda tile: (network(tile / 255) * 0 + 7).to(torch.uint8), image, 2, tile_px=4)
    assert result.dtype == torch.uint8
    assert (result == 7).all()
