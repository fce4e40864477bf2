"""Tiles put together by plain products give what the whole image gives, forward and backward."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.models.gan.filtering import Plan, resample
from lora_trainer.models.gan.filtering_tiles import MIDDLE, Blocks, Leg, has_tiles, tilings_of
from lora_trainer.models.gan.leaky_relu import SLOPE
from lora_trainer.models.gan.stylegan3 import SynthesisLayer, filtered_leaky_relu, schedule


def layer_of(resolution: int, index: int) -> SynthesisLayer:
    return SynthesisLayer(schedule(resolution, 3, 256, 8, 3, False, 4)[index], 8, 0.999, None)


def read(image: Tensor, legs: tuple[Leg, Leg], length: int, along: int, across: int) -> Tensor:
    """(length, length) of an image, zero beyond its edges."""
    top, left = (leg.first + tile * leg.stride for leg, tile in zip(legs, (along, across), strict=True))
    padded = F.pad(image, (max(0, -left), max(0, left + length), max(0, -top), max(0, top + length)))
    return padded[max(0, top) :, max(0, left) :][:length, :length]


def by_tiles(x: Tensor, first: Plan, second: Plan, again: Plan | None = None, bent: Tensor | None = None) -> Tensor:
    """The kernels' two: of x, or of the gradient x by `again` and the image that was bent."""
    tilings = tilings_of(second, first, *([again] if again else []))
    blocks = Blocks(tilings, x, 1)
    legs, length = blocks.legs(first.pairs[0])
    (up_left, up_right), (down_left, down_right) = blocks.raising(legs, length), blocks.lowering()
    result = torch.full((tilings[0].tiles * tilings[0].step, tilings[1].tiles * tilings[1].step), torch.nan)
    result = result.to(x.dtype)
    for along, across in itertools.product(range(tilings[0].tiles), range(tilings[1].tiles)):
        high = up_left @ read(x[0, 0], legs, length, along, across) @ up_right
        if again is None or bent is None:
            high = F.leaky_relu(high, SLOPE)
        else:
            legs_again, length_again = blocks.legs(again.pairs[0])
            left, right = blocks.raising(legs_again, length_again)
            was = left @ read(bent[0, 0], legs_again, length_again, along, across) @ right
            high = high * torch.where(was > 0, 1.0, SLOPE)
        assert high.shape == (MIDDLE, MIDDLE)
        step = tilings[0].step
        tile = (down_left @ high @ down_right)[:step, :step]
        result[along * step : (along + 1) * step, across * step : (across + 1) * step] = tile
    height, width = second.out_size
    return result[None, None, :height, :width]


@pytest.mark.parametrize(("resolution", "index", "rates"), [(32, 0, (2, 2)), (64, 4, (4, 2)), (128, 13, (2, 2))])
def test_tiles_are_the_whole(resolution: int, index: int, rates: tuple[int, int]) -> None:
    layer = layer_of(resolution, index)
    assert (layer.spec.up, layer.spec.down) == rates
    side = layer.spec.before.size + 2
    x = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x.requires_grad_(True)
    up, down = layer.plans(x)
    assert has_tiles(up, down)
    whole = filtered_leaky_relu(x, up, down, None)
    torch.testing.assert_close(by_tiles(x.detach(), up, down), whole.detach())
    of_y = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (of_x,) = torch.autograd.grad(whole, x, of_y)
    torch.testing.assert_close(by_tiles(of_y, down.adjoint(), up.adjoint(), up, x.detach()), of_x)


def test_a_program_for_so_many_images() -> None:
    layer = layer_of(32, 0)
    x = torch.randn(3, 5, 38, 38)
    up, down = layer.plans(x)
    tilings = tilings_of(down, up)
    assert [(tiling.step, tiling.tiles, tiling.side) for tiling in tilings] == [(27, 2, 32)] * 2
    assert Blocks(tilings, x, 4).grid == (4, 4)
    assert resample(x, up).shape[-1] == (36 - 1) * 2 + 12
