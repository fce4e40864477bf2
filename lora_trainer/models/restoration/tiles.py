"""Calling a network on a large picture tile by tile, and blending the overlapping results so that no seam shows.

Letters: b batch, c channels, h w pixels of what goes in, which for some networks are latent pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

from lora_trainer.errors import Refusal

Network = Callable[[Tensor], Tensor]
VARIANCE = 0.01  # of the weights, as a share of the tile's squared side
CENTRED, PUBLISHED = "centred", "published"
# Where a tile's weights are largest, from its sides. HYPIR's own inference is half a row off the middle.
MIDDLES: Mapping[str, Callable[[int, int], tuple[float, float]]] = {
    CENTRED: lambda height, width: ((height - 1) / 2, (width - 1) / 2),
    PUBLISHED: lambda height, width: (height / 2, (width - 1) / 2),
}


@dataclass(frozen=True)
class Tiling:
    """Sides of the square tiles and steps between them, in pixels of what goes in; a `tile_px` of 0 is no tiling."""

    tile_px: int
    stride_px: int
    window: str = CENTRED

    def divided(self, factor: int) -> Tiling:
        """The same tiles for a network that sees pictures so many times smaller."""
        return Tiling(self.tile_px // factor, self.stride_px // factor, self.window)


WHOLE = Tiling(0, 0)


def refuse_tiling(tiling: Tiling, multiple: int, tile_key: str, stride_key: str) -> None:
    """Raises Refusal, with the keys or options that set them, for tiles that leave gaps or fall between latents."""
    tile, stride = tiling.tile_px, tiling.stride_px
    if not tile:
        return
    if not 0 < stride <= tile:
        raise Refusal(
            f"{stride_key}: tiles of {tile} pixels cannot be {stride} apart; write 1 to {tile}, best {tile // 2}"
        )
    for key, value in ((tile_key, tile), (stride_key, stride)):
        if value % multiple:
            nearest = max(multiple, round(value / multiple) * multiple)
            raise Refusal(f"{key}: {value} is no multiple of {multiple}; write {nearest}")


def tile_starts(length: int, tile_px: int, stride_px: int) -> tuple[int, ...]:
    """Where tiles begin on a side; the last one ends flush with it, and a short side has a single one."""
    if length <= tile_px:
        return (0,)
    return (*range(0, length - tile_px, stride_px), length - tile_px)


@lru_cache(maxsize=16)
def tile_weights(height: int, width: int, window: str = CENTRED) -> Tensor:
    """(h, w) float32, 1 in the middle and smaller towards the sides, by a Gaussian; above 0 everywhere."""
    with torch.inference_mode(False):
        rows, columns = (
            (-((torch.arange(side, dtype=torch.float64) - middle) ** 2) / (side**2 * 2 * VARIANCE)).exp()
            for side, middle in zip((height, width), MIDDLES[window](height, width), strict=True)
        )
        return torch.outer(rows, columns).float()


def in_tiles(network: Network, image: Tensor, tiling: Tiling, scale: Fraction | int = 1, at_once: int = 1) -> Tensor:
    """(b, c, h, w) -> (b, c', h * scale, w * scale), in the network's own channels and type.

    Results are averaged with the weights of `tile_weights`, so that each pixel's add up to 1 and a network that gives
    the same everywhere gives the same here. `at_once` tiles go through the network together. Starts, and with a scale
    below 1 the sides too, must fall on whole pixels of the result. Where one tile holds all, it is `network(image)`.
    """
    height, width = image.shape[-2:]
    tile_h, tile_w = (min(side, tiling.tile_px or side) for side in (height, width))
    if (tile_h, tile_w) == (height, width):
        return network(image)
    places = [
        (top, left)
        for top in tile_starts(height, tile_h, tiling.stride_px)
        for left in tile_starts(width, tile_w, tiling.stride_px)
    ]
    ratio = Fraction(scale)
    weights = tile_weights(_scaled(tile_h, ratio), _scaled(tile_w, ratio), tiling.window).to(image.device)
    total: Tensor | None = None
    covered = torch.zeros(_scaled(height, ratio), _scaled(width, ratio), device=image.device)
    for first in range(0, len(places), at_once):
        group = places[first : first + at_once]
        made = network(torch.cat([image[..., top : top + tile_h, left : left + tile_w] for top, left in group]))
        if total is None:
            dtype, total = made.dtype, made.new_zeros(len(image), made.shape[1], *covered.shape, dtype=torch.float32)
        for (top, left), tile in zip(group, made.chunk(len(group)), strict=True):
            rows, columns = (_span(start, side, ratio) for start, side in ((top, tile_h), (left, tile_w)))
            total[..., rows, columns] += tile.float() * weights
            covered[rows, columns] += weights
    assert total is not None
    return (total / covered).to(dtype)


def _span(start: int, length: int, ratio: Fraction) -> slice:
    begin = _scaled(start, ratio)
    return slice(begin, begin + _scaled(length, ratio))


def _scaled(length: int, ratio: Fraction) -> int:
    scaled = length * ratio
    if scaled.denominator != 1:
        raise ValueError(f"{length} pixels are {float(scaled)} in the result; sizes and strides must be multiples")
    return math.floor(scaled)
