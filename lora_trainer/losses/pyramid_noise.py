"""EveryDream2's noise: a pyramid of ever coarser levels, and noise on encoded captions.

Each function works on one sample and takes its random numbers from the generator it is given.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

LEVELS = 10


def pyramid_noise(noise: Tensor, discount: float, generator: Generator) -> Tensor:
    """(c, h, w) the noise with up to ten coarser levels on top of it, brought back to a standard deviation of 1.

    Level i is r ** i times smaller than the level before it, with r between 2 and 4, is enlarged bilinearly and counts
    ``discount ** i``; so the sizes fall faster than in ``multires_noise``, which counts from the full size each time.
    """
    channels, height, width = noise.shape
    total = noise.clone()
    rows, columns = height, width
    for level in range(LEVELS):
        stride = (2.0 + 2.0 * float(torch.rand((), generator=generator))) ** level
        rows, columns = max(1, int(rows / stride)), max(1, int(columns / stride))
        coarse = torch.randn(1, channels, rows, columns, generator=generator)
        enlarged = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
        total += enlarged[0].to(total) * discount**level
        if rows == 1 or columns == 1:
            break
    return total / total.std()


def caption_perturbation(tokens: int, width: int, gamma: float, generator: Generator) -> Tensor:
    """(tokens, width) what is added to an encoded caption: normal with a spread of gamma / sqrt(width)."""
    return torch.randn(tokens, width, generator=generator) * (gamma / math.sqrt(width))
