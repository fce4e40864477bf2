"""Calling an upscaler on pictures of any size: padded to what it needs, and in tiles where memory is short."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

Upscale = Callable[[Tensor], Tensor]


@torch.inference_mode()
def upscale_tiled(
    module: Upscale, image: Tensor, scale: int, *, tile_px: int = 0, overlap_px: int = 16, multiple: int = 1,
    minimum_px: int = 1,
) -> Tensor:  # fmt: skip
    """(b, 3, h, w) -> (b, 3, h * scale, w * scale).

    `tile_px` is the side of a tile in pixels of the input, 0 for the whole picture at once. Each tile sees `overlap_px`
    more on every side, which are cut off: nothing shows where the network looks no farther than that.
    """
    if not tile_px:
        return _padded(module, image, scale, multiple, minimum_px)
    height, width = image.shape[-2:]
    result: Tensor | None = None
    for top, bottom in _spans(height, tile_px):
        for left, right in _spans(width, tile_px):
            up, start = max(0, top - overlap_px), max(0, left - overlap_px)
            down, end = min(height, bottom + overlap_px), min(width, right + overlap_px)
            tile = _padded(module, image[..., up:down, start:end], scale, multiple, minimum_px)
            if result is None:
                result = tile.new_empty(*tile.shape[:2], height * scale, width * scale)
            inner = tile[
                ..., (top - up) * scale : (bottom - up) * scale, (left - start) * scale : (right - start) * scale
            ]
            result[..., top * scale : bottom * scale, left * scale : right * scale] = inner
    assert result is not None
    return result


def _spans(length: int, tile_px: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, length, tile_px):
        yield begin, min(length, begin + tile_px)


def _padded(module: Upscale, image: Tensor, scale: int, multiple: int, minimum_px: int) -> Tensor:
    """The border is mirrored up to a size that the network takes, or repeated where the picture is too small for it."""
    height, width = image.shape[-2:]
    bottom, right = (max(0, -(-max(side, minimum_px) // multiple) * multiple - side) for side in (height, width))
    if bottom or right:
        mode = "reflect" if bottom < height and right < width else "replicate"
        image = F.pad(image, (0, right, 0, bottom), mode=mode)
    return module(image)[..., : height * scale, : width * scale]
