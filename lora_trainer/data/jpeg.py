"""JPEG compression of a batch on its device, each picture at its own quality, as libjpeg rounds it.

It is not differentiable, and needs not be. Tables and steps are those of ITU-T T.81 and of libjpeg's default decoder.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_trainer.data.resize import to_device

BLOCK = 8
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), (99, 99, 99, 99, 99, 99, 99, 99), (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99), (99, 99, 99, 99, 99, 99, 99, 99),
)  # fmt: skip


def jpeg(images: Tensor, qualities: Sequence[int]) -> Tensor:
    """(b, 3, h, w) from 0 to 1, and b qualities from 1 to 100 -> the same after compression with 4:2:0 colour."""
    height, width = images.shape[-2:]
    with torch.autocast(images.device.type, enabled=False):
        tables = to_device(_tables(tuple(qualities)), images.device)  # (2, b, 8, 8)
        luma, blue, red = _to_ycc((images.float().clamp(0, 1) * 255).round())
        luma = _coded(_padded(luma, 2 * BLOCK), tables[0])[..., :height, :width]
        halves = [_coded(_halved(_padded(plane, 2 * BLOCK)), tables[1]) for plane in (blue, red)]
        rows, columns = -(-height // 2), -(-width // 2)
        blue, red = (_doubled(plane[..., :rows, :columns])[..., :height, :width] for plane in halves)
        return (_to_rgb(luma, blue, red) / 255).to(images.dtype)


def quality_tables(quality: int) -> Tensor:
    """(2, 8, 8) the steps of luma and of colour at a quality, as libjpeg scales them."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    base = torch.tensor((LUMA, CHROMA), dtype=torch.int64)
    return ((base * scale + 50) // 100).clamp(1, 255).float()


def _tables(qualities: tuple[int, ...]) -> Tensor:
    return torch.stack([quality_tables(min(100, max(1, quality))) for quality in qualities], 1)


def _to_ycc(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(b, h, w) each, whole numbers from 0 to 255."""
    red, green, blue = image.unbind(1)
    return (
        (0.299 * red + 0.587 * green + 0.114 * blue).round(),
        (-0.168735892 * red - 0.331264108 * green + 0.5 * blue + 128 - 1e-4).round().clamp(0, 255),
        (0.5 * red - 0.418687589 * green - 0.081312411 * blue + 128 - 1e-4).round().clamp(0, 255),
    )


def _to_rgb(luma: Tensor, blue: Tensor, red: Tensor) -> Tensor:
    blue, red = blue - 128, red - 128
    green = luma + (-0.344136286 * blue - 0.714136286 * red).round()
    return torch.stack([luma + (1.402 * red).round(), green, luma + (1.772 * blue).round()], 1).clamp(0, 255)


def _padded(plane: Tensor, multiple: int) -> Tensor:
    """The last row and column repeated up to a multiple."""
    bottom, right = (-side % multiple for side in plane.shape[-2:])
    return F.pad(plane[:, None], (0, right, 0, bottom), mode="replicate")[:, 0]


def _halved(plane: Tensor) -> Tensor:
    """The means of 2 x 2 pixels; halves are rounded down and up by turns, as libjpeg does."""
    sums = F.avg_pool2d(plane[:, None], 2)[:, 0] * 4
    bias = torch.ones_like(sums)
    bias[..., 1::2] = 2
    return ((sums + bias) / 4).floor()


def _doubled(plane: Tensor) -> Tensor:
    """libjpeg's "fancy" enlargement: three parts of the near pixel and one of the far one, along both axes."""
    above = torch.cat([plane[:, :1], plane[:, :-1]], 1)
    below = torch.cat([plane[:, 1:], plane[:, -1:]], 1)
    tall = torch.stack([3 * plane + above, 3 * plane + below], 2).flatten(1, 2)  # (b, 2h, w), four times too large
    left = torch.cat([tall[..., :1], tall[..., :-1]], -1)
    right = torch.cat([tall[..., 1:], tall[..., -1:]], -1)
    return torch.stack([((3 * tall + left + 8) / 16).floor(), ((3 * tall + right + 7) / 16).floor()], -1).flatten(-2)


def _coded(plane: Tensor, table: Tensor) -> Tensor:
    """(b, h, w) after the cosine transform, rounding to the table's steps and the way back."""
    b, h, w = plane.shape
    cosines = _cosines(plane.device)
    blocks = (plane - 128).view(b, h // BLOCK, BLOCK, w // BLOCK, BLOCK).transpose(2, 3)  # (b, rows, columns, 8, 8)
    steps = table[:, None, None]
    levels = cosines @ blocks @ cosines.t() / steps
    # halves away from zero; the margin keeps float32 from falling on the other side
    levels = torch.sign(levels) * (levels.abs() + 0.5 + 1e-5).floor()
    back = cosines.t() @ (levels * steps) @ cosines
    return (back + 128).round().clamp(0, 255).transpose(2, 3).reshape(b, h, w)


@functools.lru_cache(maxsize=8)
def _cosines(device: torch.device) -> Tensor:
    """(8, 8) the orthonormal cosine transform."""
    rows = [
        [
            math.sqrt((1 if u == 0 else 2) / BLOCK) * math.cos((2 * x + 1) * u * math.pi / (2 * BLOCK))
            for x in range(BLOCK)
        ]
        for u in range(BLOCK)
    ]
    return torch.tensor(rows, device=device)
