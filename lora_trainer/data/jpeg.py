"""JPEG compression of a batch on its device, each picture at its own quality: the very pixels that libjpeg gives.

Follows the baseline path of libjpeg(-turbo) with its integers: tables of quality, 16-bit fractions of colour, means of
2 x 2 pixels of colour, the "slow" integer DCT, rounding to the steps, and the decoder's "fancy" enlargement of colour.
What loses nothing, the entropy coding, is left out. Sums are made in float64, which holds those integers exactly, and
which neither autocast nor TF32 touches. It is not differentiable, and needs not be.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_trainer.data.resize import to_device

BLOCK = 8
SUBSAMPLINGS = ("4:2:0", "4:4:4")
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
# the integer DCT (Loeffler, Ligtenberg, Moschytz 1989, as libjpeg rounds its factors) before its right shifts: a row
# for each frequency, a column for each pixel
DCT = (
    (8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192),
    (11363, 9633, 6437, 2260, -2260, -6437, -9633, -11363),
    (10703, 4433, -4433, -10703, -10703, -4433, 4433, 10703),
    (9633, -2259, -11362, -6436, 6436, 11362, 2259, -9633),
    (8192, -8192, -8192, 8192, 8192, -8192, -8192, 8192),
    (6437, -11362, 2261, 9633, -9633, -2261, 11362, -6437),
    (4433, -10704, 10704, -4433, -4433, 10704, -10704, 4433),
    (2260, -6436, 9633, -11363, 11363, -9633, 6436, -2260),
)
COLOUR_BITS = 16  # of the fractions of colour: 65536 is 1
TO_YCC = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
TO_YCC_OFFSET = ((32768,), (128 * 65536 + 32767,), (128 * 65536 + 32767,))  # 128, and a half that is no half for colour
TO_RGB = ((65536, 0, 91881), (65536, -22554, -46802), (65536, 116130, 0))
TO_RGB_OFFSET = ((32768,), (32768,), (32768,))


def jpeg(images: Tensor, qualities: Sequence[int], subsampling: str = "4:2:0") -> Tensor:
    """(b, 3, h, w) from 0 to 1, and b qualities from 1 to 100 -> the same after compression, in steps of 1/255.

    ``subsampling`` is 4:2:0 or 4:4:4; ValueError for another.
    """
    if subsampling not in SUBSAMPLINGS:
        raise ValueError(f"no subsampling {subsampling}; there is {' and '.join(SUBSAMPLINGS)}")
    height, width = images.shape[-2:]
    exact = torch.float32 if images.device.type == "mps" else torch.float64  # MPS has no float64
    tables = to_device(_tables(tuple(qualities)).to(exact), images.device)  # (b, 2, 8, 8)
    ycc = _mixed((images.detach().clamp(0, 1) * 255).round().to(exact), TO_YCC, TO_YCC_OFFSET)
    luma = _coded(_padded(ycc[:, :1], BLOCK, BLOCK), tables[:, :1])[..., :height, :width]
    if subsampling == "4:4:4":
        colour = _coded(_padded(ycc[:, 1:], BLOCK, BLOCK), tables[:, 1:])[..., :height, :width]
    else:
        rows, columns = -(-height // 2), -(-width // 2)
        halves = _coded(_padded(_halved(ycc[:, 1:]), BLOCK, BLOCK), tables[:, 1:])
        colour = _doubled(halves[..., :rows, :columns])[..., :height, :width]
    decoded = _mixed(torch.cat([luma, colour - 128], 1), TO_RGB, TO_RGB_OFFSET)
    return decoded.clamp_(0, 255).to(images.dtype) / 255


def quality_tables(quality: int) -> Tensor:
    """(2, 8, 8) the steps of luma and of colour at a quality, as libjpeg scales them."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    base = torch.tensor((LUMA, CHROMA), dtype=torch.int64)
    return ((base * scale + 50) // 100).clamp(1, 255).double()


def _tables(qualities: tuple[int, ...]) -> Tensor:
    return torch.stack([quality_tables(min(100, max(1, quality))) for quality in qualities])


def _mixed(planes: Tensor, weights: tuple[tuple[int, ...], ...], offset: tuple[tuple[int, ...], ...]) -> Tensor:
    """(b, 3, h, w) other mixtures of the three planes, whole numbers."""
    matrix, shift = (_numbers(each, planes.device, planes.dtype) for each in (weights, offset))
    mixed = torch.matmul(matrix, planes.flatten(2)).add_(shift).mul_(2.0**-COLOUR_BITS)
    return mixed.floor_().view_as(planes)


def _padded(planes: Tensor, rows: int, columns: int) -> Tensor:
    """The last row and column repeated up to multiples."""
    bottom, right = -planes.shape[-2] % rows, -planes.shape[-1] % columns
    return F.pad(planes, (0, right, 0, bottom), mode="replicate") if bottom or right else planes


def _halved(planes: Tensor) -> Tensor:
    """The means of 2 x 2 pixels; halves are rounded down and up by turns. To the right, the picture is continued to the
    end of the block before the means are taken; at the bottom, only after it."""
    sums = F.avg_pool2d(_padded(planes, 2, 2 * BLOCK), 2, divisor_override=1)
    sums[..., 0::2] += 1
    sums[..., 1::2] += 2
    return sums.mul_(0.25).floor_()


def _doubled(planes: Tensor) -> Tensor:
    """The "fancy" enlargement: three parts of the near pixel and one of the far one, along both axes."""
    if planes.shape[-1] <= 2:  # too narrow for it
        return planes.repeat_interleave(2, -2).repeat_interleave(2, -1)
    wide = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    near = wide[..., 1:-1, :] * 3
    tall = torch.stack([near + wide[..., :-2, :], near + wide[..., 2:, :]], -2).flatten(-3, -2)
    near = tall[..., 1:-1] * 3
    left, right = near + tall[..., :-2] + 8, near + tall[..., 2:] + 7
    return torch.stack([left, right], -1).flatten(-2).mul_(1 / 16).floor_()


def _coded(planes: Tensor, tables: Tensor) -> Tensor:
    """(b, c, h, w) after the cosine transform, rounding to the steps of (b, 1, 8, 8) and the way back.

    Blocks are turned over between the passes, so that all four are one large product.
    """
    b, c, h, w = planes.shape
    dct = _numbers(DCT, planes.device, planes.dtype)
    steps = tables.transpose(-1, -2)
    blocks = planes.view(b, c, h // BLOCK, BLOCK, w // BLOCK, BLOCK).transpose(3, 4).reshape(b, -1, BLOCK, BLOCK)
    rows = _product(blocks - 128, dct.t(), 11)
    eighths = _product(rows.transpose(-1, -2), dct.t(), 15)  # turned over, and eight times the coefficients
    levels = eighths.abs().add_(4 * steps).div_(8 * steps).floor_().mul_(eighths.sign_())
    columns = _product(levels.mul_(steps), dct, 11)
    back = _product(columns.transpose(-1, -2), dct, 18).add_(128).clamp_(0, 255)
    return back.view(b, c, h // BLOCK, w // BLOCK, BLOCK, BLOCK).transpose(3, 4).reshape(b, c, h, w)


def _product(blocks: Tensor, matrix: Tensor, bits: int) -> Tensor:
    """Divided by a power of 2 and rounded, halves upwards."""
    product = blocks.reshape(-1, BLOCK) @ matrix
    return product.mul_(2.0**-bits).add_(0.5).floor_().view(blocks.shape)


@functools.lru_cache(maxsize=32)
def _numbers(rows: tuple[tuple[int, ...], ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return to_device(torch.tensor(rows, dtype=dtype), device)
