"""Colours of the degraded picture, details of the restored one: what a generative restorer shifts is put back.

Letters: b batch, c channels, h w pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 5
TAPS = (0.25, 0.5, 0.25)


def low_frequencies(image: Tensor, levels: int = LEVELS) -> Tensor:
    """(b, c, h, w) smoothed by a 3 x 3 binomial kernel whose taps are 1, 2, 4 ... pixels apart, one after the other.

    Outside of the picture its border is repeated. This is what an undecimated wavelet transform leaves after so many
    levels of detail; the details of all levels together are the picture without it.
    """
    channels = image.shape[1]
    taps = torch.tensor(TAPS, dtype=image.dtype, device=image.device)
    vertical = taps.view(1, 1, 3, 1).expand(channels, -1, -1, -1)
    horizontal = taps.view(1, 1, 1, 3).expand(channels, -1, -1, -1)
    for level in range(levels):
        apart = 2**level
        framed = F.pad(image, (apart,) * 4, mode="replicate")
        smooth = F.conv2d(framed, vertical, dilation=apart, groups=channels)
        image = F.conv2d(smooth, horizontal, dilation=apart, groups=channels)
    return image


def with_colours_of(restored: Tensor, degraded: Tensor, levels: int = LEVELS) -> Tensor:
    """(b, c, h, w) the details of the restored picture over the low frequencies of the degraded one, not clamped.

    Both have the same size. Smoothing is linear, so that once is enough.
    """
    return restored + low_frequencies(degraded - restored, levels)
