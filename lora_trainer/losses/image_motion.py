"""Images shifted and turned as band-limited signals, to compare a generator's own shifts and turns with.

Images are (b, c, h, w). A shift is in parts of the side, to the right and downwards; angles are in radians, and a
positive one turns clockwise as the image is seen. Each function also gives a mask (1, 1, h, w) of the pixels that
follow from pixels inside the image alone. Filters are sincs in Lanczos windows (Karras et al. 2021, appendix E).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LANCZOS = 3  # zero crossings of a window on either side
REACH = 2 * LANCZOS  # of a filter that is a product of two in frequency
EXTENT = 64  # pixels on either side in which sincs are convolved
OVERSAMPLING = 4  # of an image that is then turned with bilinear interpolation


def shifted_by_pixels(images: Tensor, right: int, down: int) -> tuple[Tensor, Tensor]:
    """By whole pixels, which invents nothing."""
    rows, row_mask = _whole_shift(images.shape[2], down)
    columns, column_mask = _whole_shift(images.shape[3], right)
    index = torch.tensor(rows, device=images.device), torch.tensor(columns, device=images.device)
    moved = images[:, :, index[0]][:, :, :, index[1]]
    return _masked(moved, row_mask.to(images), column_mask.to(images))


def shifted(images: Tensor, right: float, down: float) -> tuple[Tensor, Tensor]:
    """By parts of the side, with Lanczos interpolation along each axis."""
    height, width = images.shape[2:]
    rows, row_mask = lanczos_shift(height, down * height)
    columns, column_mask = lanczos_shift(width, right * width)
    moved = rows.to(images) @ images @ columns.to(images).t()
    return _masked(moved, row_mask.to(images), column_mask.to(images))


def turned(images: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """About the centre, keeping only frequencies that both the old and the new grid of pixels can hold."""
    height, width = images.shape[2:]
    taps = band_limit(angle, OVERSAMPLING).to(images)
    fine = F.conv_transpose2d(images.flatten(0, 1)[:, None], taps[None, None], stride=OVERSAMPLING)
    fine = fine.view(*images.shape[:2], *fine.shape[2:])
    down, right = _places_before(height, width, angle, images.device)
    size = torch.tensor(fine.shape[2:], device=images.device)
    centre = len(taps) // 2
    places = torch.stack([right, down], 2).to(images.dtype) * OVERSAMPLING + centre
    last = (size.flip(0) - 1).to(images.dtype)
    grid = places / last * 2 - 1
    moved = F.grid_sample(fine, grid.expand(len(images), -1, -1, -1), "bilinear", "zeros", align_corners=True)
    inside = ((places >= 2 * centre) & (places <= last - 2 * centre)).all(2)
    mask = inside.to(images.dtype)[None, None]
    return moved * mask, mask


def band_limited_as_if_turned(images: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Not turned, but with the frequencies only that an image has which was turned to here by that angle."""
    taps = band_limit(-angle, 1).to(images)
    centre = len(taps) // 2
    flat = images.flatten(0, 1)[:, None]
    limited = F.conv2d(flat, taps.flip(0, 1)[None, None], padding=centre).view_as(images)
    sides = []
    for side in images.shape[2:]:
        line = torch.zeros(side, dtype=images.dtype, device=images.device)
        line[centre : side - centre] = 1
        sides.append(line)
    return _masked(limited, *sides)


def lanczos_shift(side: int, pixels: float) -> tuple[Tensor, Tensor]:
    """The matrix (side, side) that shifts a line, and which of its rows (side,) need nothing from outside."""
    before = torch.arange(side, dtype=torch.float64) - pixels  # where each pixel comes from
    distances = before[:, None] - torch.arange(side, dtype=torch.float64)
    weights = torch.sinc(distances) * _window(distances)
    first = before.floor() - (LANCZOS - 1)
    mask = (first >= 0) & (first + 2 * LANCZOS - 1 <= side - 1)
    weights = weights / torch.where(mask, weights.sum(1), 1.0)[:, None]
    return weights, mask.double()


def band_limit(angle: float, up: int) -> Tensor:
    """(n, n) taps, `up` to a pixel, of a low-pass to the frequencies of one grid of pixels and of one turned by angle.

    Each of the `up` times `up` sets of taps a pixel apart sums to 1.
    """
    steps = torch.arange(-EXTENT * up, EXTENT * up, dtype=torch.float64) / up
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    cosine, sine = math.cos(angle), math.sin(angle)
    other_x, other_y = cosine * x - sine * y, sine * x + cosine * y
    ideal = _convolved(torch.sinc(x) * torch.sinc(y), torch.sinc(other_x) * torch.sinc(other_y))
    window = _convolved(_window(x) * _window(y), _window(other_x) * _window(other_y))
    middle = EXTENT * up
    reach = REACH * up
    taps = (ideal * window)[middle - reach + 1 : middle + reach, middle - reach + 1 : middle + reach]
    sets = F.pad(taps, (1, 0, 1, 0)).view(2 * REACH, up, 2 * REACH, up)
    sets = sets / sets.sum((0, 2), keepdim=True)
    return sets.view(2 * reach, 2 * reach)[1:, 1:]


def _convolved(first: Tensor, second: Tensor) -> Tensor:
    spectrum = torch.fft.rfft2(torch.fft.ifftshift(first)) * torch.fft.rfft2(torch.fft.ifftshift(second))
    centred: Tensor = torch.fft.fftshift(torch.fft.irfft2(spectrum, s=first.shape))
    return centred


def _window(x: Tensor) -> Tensor:
    return torch.where(x.abs() < LANCZOS, torch.sinc(x / LANCZOS), 0.0)


def _places_before(height: int, width: int, angle: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each pixel of the turned image comes from: rows and columns (h, w)."""
    y = torch.arange(height, device=device, dtype=torch.float32) - (height - 1) / 2
    x = torch.arange(width, device=device, dtype=torch.float32) - (width - 1) / 2
    y, x = torch.meshgrid(y, x, indexing="ij")
    cosine, sine = math.cos(angle), math.sin(angle)
    return -sine * x + cosine * y + (height - 1) / 2, cosine * x + sine * y + (width - 1) / 2


def _whole_shift(side: int, pixels: int) -> tuple[list[int], Tensor]:
    before = [place - pixels for place in range(side)]
    mask = torch.tensor([0 <= place < side for place in before], dtype=torch.float64)
    return [min(max(place, 0), side - 1) for place in before], mask


def _masked(images: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    mask = torch.outer(rows, columns)[None, None]
    return images * mask, mask
