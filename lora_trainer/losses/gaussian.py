"""Gaussian windows and what they do to pictures: separable, so that a 33 x 33 window costs two of 33.

Letters: b batch, c channels, h w pixels.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

PRODUCTS_UP_TO_PX = 256  # where a matrix product stops being quicker than sliding the window (measured on a CPU)
NEGLIGIBLE = 1e-10  # of the middle's weight; far below what float32 adds to a sum near 1


def gaussian_window(size: int, sigma: float) -> tuple[float, ...]:
    """Weights of a window of odd size, which add up to 1."""
    half = size // 2
    weights = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-half, half + 1)]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def trimmed(window: tuple[float, ...]) -> tuple[float, ...]:
    """The window without the ends that change nothing."""
    half = len(window) // 2
    cut = next(index for index in range(half + 1) if window[index] > NEGLIGIBLE * window[half])
    return window[cut : len(window) - cut]


def filtered(image: Tensor, window: tuple[float, ...], *, padded: bool) -> Tensor:
    """(b, c, h, w), or less by the window's size - 1 where not ``padded``; outside of the picture there are zeros."""
    padding = len(window) // 2 if padded else 0
    height, width = image.shape[-2:]
    if max(height, width) <= PRODUCTS_UP_TO_PX and _products_are_exact(image):
        rows = _band(height, window, padding, image.dtype, image.device)
        columns = _band(width, window, padding, image.dtype, image.device)
        return rows @ image @ columns.mT
    return _slid(image, window, padding)


def _slid(image: Tensor, window: tuple[float, ...], padding: int) -> Tensor:
    channels = image.shape[1]
    weights = _weights(window, image.dtype, image.device)
    # Contiguous: for channels-last pictures cuDNN would take over, and round to TF32.
    down = F.conv2d(
        image.contiguous(), weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), padding=(padding, 0), groups=channels
    )
    return F.conv2d(down, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), padding=(0, padding), groups=channels)


def _products_are_exact(image: Tensor) -> bool:
    """Variances are differences of products, so that TF32, which a preset may allow, would ruin them."""
    return image.device.type != "cuda" or torch.get_float32_matmul_precision() == "highest"


@lru_cache(maxsize=64)
def _weights(window: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # kept for training, also when a validation asks first
        return torch.tensor(window, dtype=dtype, device=device)


@lru_cache(maxsize=64)
def _band(length: int, window: tuple[float, ...], padding: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(n, length) what a window sliding over ``length`` elements sums up, one row for each place."""
    with torch.inference_mode(False):
        places = length + 2 * padding - len(window) + 1
        band = torch.zeros(places, length + 2 * padding, dtype=dtype)
        for offset, weight in enumerate(window):
            band.diagonal(offset)[:places].fill_(weight)
        return band[:, padding : padding + length].contiguous().to(device)
