"""Resizing of pictures on their device: MATLAB's filters for sizes that come again, PyTorch's for random sizes.

Images are (b, c, h, w) float; sizes are (height, width). Every filter widens when it shrinks a picture, so that nothing
aliases, except nearest-exact. Results may overshoot 0 to 1: nothing is clamped, unless a function says so.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]
MODES = ("bicubic", "bilinear", "lanczos", "area", "nearest-exact")


def resize(image: Tensor, size_px: Size, mode: str = "bicubic") -> Tensor:
    """To (height, width) by one of MODES, as MATLAB's imresize: the border is mirrored. ValueError for another mode.

    The weights are kept for the next picture of this size, and the sums are made in float64, where neither autocast nor
    TF32 reaches them.
    """
    if (image.shape[-2], image.shape[-1]) == tuple(size_px):
        return image
    if mode not in _FILTERS:
        return interpolate(image, size_px, mode)
    rows = _kept_weights(mode, image.shape[-2], size_px[0], image.device)
    columns = _kept_weights(mode, image.shape[-1], size_px[1], image.device)
    return _separable(image, rows, columns)


def bicubic(image: Tensor, size_px: Size) -> Tensor:
    """MATLAB's imresize: cubic convolution with a = -0.5 (Keys 1981), widened when shrinking, the border mirrored."""
    return resize(image, size_px, "bicubic")


def downscale_lq(gt: Tensor, scale: int, mode: str = "bicubic") -> Tensor:
    """The low resolution of super-resolution: 0 to 1, rounded to 8 bits as a saved picture would be.

    The size must be a multiple of the scale.
    """
    height, width = gt.shape[-2] // scale, gt.shape[-1] // scale
    return to_eight_bits(resize(gt, (height, width), mode))


def to_eight_bits(image: Tensor) -> Tensor:
    """0 to 1 in steps of 1/255."""
    return (image.clamp(0, 1) * 255).round() / 255


def interpolate(image: Tensor, size_px: Size, mode: str) -> Tensor:
    """To a size that will not come again: nothing is kept, and every pixel is the same in whatever batch it stands.

    Bicubic and bilinear are PyTorch's own, which differ from MATLAB's within some pixels of the border only. ValueError
    for a mode that is none of MODES.
    """
    if (image.shape[-2], image.shape[-1]) == tuple(size_px):
        return image
    if mode in ("bicubic", "bilinear"):
        return F.interpolate(image, size_px, mode=mode, align_corners=False, antialias=True)
    if mode in ("area", "nearest-exact"):
        return F.interpolate(image, size_px, mode=mode)
    if mode not in _FILTERS:
        raise ValueError(f"no way of resizing {mode}; there is {', '.join(MODES)}")
    rows = _weights(mode, image.shape[-2], size_px[0], image.device)
    columns = _weights(mode, image.shape[-1], size_px[1], image.device)
    return torch.cat([_separable(image[index : index + 1], rows, columns) for index in range(len(image))])


def to_device(numbers: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device, without waiting for what the device is still doing."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)


def _cubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _lanczos3(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


_FILTERS: Mapping[str, tuple[Callable[[Tensor], Tensor], int]] = {  # and the width of each in pixels
    "bicubic": (_cubic, 4),
    "bilinear": (_triangle, 2),
    "lanczos": (_lanczos3, 6),
}


def _separable(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """One axis after the other; the one that shrinks more comes first, because that is less work."""
    exact = image.to(rows.dtype)
    if rows.shape[0] * columns.shape[1] <= rows.shape[1] * columns.shape[0]:
        result = torch.matmul(torch.matmul(rows, exact), columns.t())
    else:
        result = torch.matmul(rows, torch.matmul(exact, columns.t()))
    return result.to(image.dtype)


def _weights(mode: str, before: int, after: int, device: torch.device) -> Tensor:
    """(after, before): how much each source pixel counts in each result."""
    function, support = _FILTERS[mode]
    scale = after / before
    stretch = min(1.0, scale)
    width = support / stretch
    centre = ((torch.arange(after, dtype=torch.float64) + 0.5) / scale - 0.5)[:, None]
    place = (centre - width / 2).floor() + torch.arange(math.ceil(width) + 2, dtype=torch.float64)
    weight = function(stretch * (centre - place))
    weight /= weight.sum(1, keepdim=True)
    mirrored = place.long().remainder(2 * before)  # beyond the border stands the picture again, turned over
    mirrored = torch.minimum(mirrored, 2 * before - 1 - mirrored)
    matrix = torch.zeros(after, before, dtype=torch.float64).scatter_add_(1, mirrored, weight)
    return to_device(matrix if device.type != "mps" else matrix.float(), device)  # MPS has no float64


@functools.lru_cache(maxsize=64)
def _kept_weights(mode: str, before: int, after: int, device: torch.device) -> Tensor:
    return _weights(mode, before, after, device)
