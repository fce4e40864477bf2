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

    `tile_px` is the side of a tile in pixels of the input, 0 for the whole picture at once. Each tile sees at least
    `overlap_px` more on every side, which are cut off: nothing shows where the network looks no farther than that. The
    sides of what the module is called with are multiples of `multiple`, and at least `minimum_px`. The result has the
    type and the device of what the module gives.
    """
    if not tile_px:
        return _padded(module, image, scale, multiple, minimum_px)
    height, width = image.shape[-2:]
    result: Tensor | None = None
    for top, bottom in _spans(height, tile_px):
        for left, right in _spans(width, tile_px):
            up, down = _seen(top, bottom, height, overlap_px, multiple, minimum_px)
            start, end = _seen(left, right, width, overlap_px, multiple, minimum_px)
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


def _seen(
    begin: int, end: int, length: int, overlap_px: int, multiple: int, minimum_px: int
) -> tuple[int, int]:  # fmt: skip
    """What the network is shown for a tile from `begin` to `end`.

    It lies on multiples, as windows and unshuffled pixels then fall as they do in the whole picture.
    """
    last = min(length, -(-(end + overlap_px) // multiple) * multiple)
    first = max(0, min(begin - overlap_px, last - minimum_px))
    return first // multiple * multiple, last


def _padded(module: Upscale, image: Tensor, scale: int, multiple: int, minimum_px: int) -> Tensor:
    """The border is mirrored up to a size that the network takes, or repeated where the picture is too small for it."""
    height, width = image.shape[-2:]
    bottom, right = (max(0, -(-max(side, minimum_px) // multiple) * multiple - side) for side in (height, width))
    if bottom or right:
        mode = "reflect" if bottom < height and right < width else "replicate"
        image = F.pad(image, (0, right, 0, bottom), mode=mode)
    return module(image)[..., : height * scale, : width * scale]
