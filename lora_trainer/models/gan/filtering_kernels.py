"""Triton kernels of the filtered leaky ReLU: a tile is raised, bent and lowered without its middle being written.

Each pass along an axis is a product with a block of the banded matrices of `filtering`, the same for every tile. A
tile reads `reads` samples of the source along an axis, makes `middle` at the high rate, and of `writes` results keeps
`step`; all but the last are powers of two.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _passes(left, tile, right, dtype: tl.constexpr):
    """left (a, b), tile (b, c), right (c, d) -> float32 (a, d); what lies between is rounded as an image of `dtype`."""
    return tl.dot(tl.dot(left, tile).to(dtype), right)


@triton.jit
def _block(matrix, height: tl.constexpr, width: tl.constexpr):
    return tl.load(matrix + tl.arange(0, height)[:, None] * width + tl.arange(0, width)[None, :])


@triton.jit
def _tile(images, image, first_row, first_column, height, width, side: tl.constexpr):
    """(side, side) of an image, zero beyond its edges."""
    rows = first_row + tl.arange(0, side)
    columns = first_column + tl.arange(0, side)
    inside = (rows >= 0)[:, None] & (rows < height)[:, None] & (columns >= 0)[None, :] & (columns < width)[None, :]
    places = images + tl.cast(image, tl.int64) * height * width + rows[:, None] * width + columns[None, :]
    return tl.load(places, mask=inside, other=0.0)


@triton.jit
def _keep(images, image, tile, first_row, first_column, height, width, step: tl.constexpr, side: tl.constexpr):
    """Write the first `step` rows and columns of the tile, as far as the image reaches."""
    numbers = tl.arange(0, side)
    rows, columns = first_row + numbers, first_column + numbers
    inside = (
        (rows < height)[:, None] & (columns < width)[None, :] & (numbers < step)[:, None] & (numbers < step)[None, :]
    )
    places = images + tl.cast(image, tl.int64) * height * width + rows[:, None] * width + columns[None, :]
    tl.store(places, tile, mask=inside)


@triton.jit
def bend_kernel(
    x, y, up_left, up_right, down_left, down_right,
    count, in_height, in_width, out_height, out_width, tiles_across, first_row, first_column, slope, clamp,
    stride: tl.constexpr, step: tl.constexpr, reads: tl.constexpr, middle: tl.constexpr, writes: tl.constexpr,
    images: tl.constexpr,
):  # fmt: skip
    """x (count, in_height, in_width) -> y (count, out_height, out_width), a tile of `images` of them. One that is not
    there any more has no rows."""
    dtype: tl.constexpr = x.dtype.element_ty
    across = tl.program_id(0) % tiles_across
    along = tl.program_id(0) // tiles_across
    up_vertically, up_horizontally = _block(up_left, middle, reads), _block(up_right, reads, middle)
    down_vertically, down_horizontally = _block(down_left, writes, middle), _block(down_right, middle, writes)
    for number in tl.range(images, disable_licm=True):
        image = tl.program_id(1) * images + number
        rows_in, rows_out = tl.where(image < count, in_height, 0), tl.where(image < count, out_height, 0)
        source = _tile(x, image, first_row + along * stride, first_column + across * stride, rows_in, in_width, reads)
        high = _passes(up_vertically, source, up_horizontally, dtype)
        high = tl.where(high > 0, high, high * slope)
        high = tl.maximum(high, -clamp, propagate_nan=tl.PropagateNan.ALL)
        high = tl.minimum(high, clamp, propagate_nan=tl.PropagateNan.ALL)
        result = _passes(down_vertically, high.to(dtype), down_horizontally, dtype)
        _keep(y, image, result.to(dtype), along * step, across * step, rows_out, out_width, step, writes)


@triton.jit
def bend_back_kernel(
    of_y, x, of_x, up_left, up_right, down_left, down_right, again_left, again_right,
    count, y_height, y_width, x_height, x_width, tiles_across,
    first_row, first_column, again_row, again_column, slope, clamp,
    stride: tl.constexpr, again_stride: tl.constexpr, step: tl.constexpr,
    reads: tl.constexpr, reads_again: tl.constexpr, middle: tl.constexpr, writes: tl.constexpr,
    images: tl.constexpr,
):  # fmt: skip
    """of_y (count, y_height, y_width) -> of_x (count, x_height, x_width).

    The blocks are those of the transposed passes; `again` raises x once more, which tells where it was bent or
    cut off.
    """
    dtype: tl.constexpr = x.dtype.element_ty
    across = tl.program_id(0) % tiles_across
    along = tl.program_id(0) // tiles_across
    for number in tl.range(images, disable_licm=True):
        image = tl.program_id(1) * images + number
        rows_x, rows_y = tl.where(image < count, x_height, 0), tl.where(image < count, y_height, 0)
        source = _tile(
            x, image, again_row + along * again_stride, again_column + across * again_stride,
            rows_x, x_width, reads_again,
        )  # fmt: skip
        high = _passes(_block(again_left, middle, reads_again), source, _block(again_right, reads_again, middle), dtype)
        slopes = tl.where(high > 0, 1.0, slope)
        slopes = tl.where(tl.abs(high * slopes) >= clamp, 0.0, slopes)
        gradient = _tile(
            of_y, image, first_row + along * stride, first_column + across * stride, rows_y, y_width, reads
        )
        of_high = _passes(_block(up_left, middle, reads), gradient, _block(up_right, reads, middle), dtype) * slopes
        result = _passes(
            _block(down_left, writes, middle), of_high.to(dtype), _block(down_right, middle, writes), dtype
        )
        _keep(of_x, image, result.to(dtype), along * step, across * step, rows_x, x_width, step, writes)
