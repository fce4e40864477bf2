"""Noise of degradation: Gaussian, and Poisson as Real-ESRGAN scales it. Pictures are (1, 3, h, w) from 0 to 1."""

from __future__ import annotations

import torch
from torch import Tensor

from lora_trainer.data.resize import to_eight_bits

GREY = (0.299, 0.587, 0.114)


def gaussian_noise(image: Tensor, sigma: float, grey: bool, generator: torch.Generator) -> Tensor:
    """With noise of `sigma` levels of 255 added, the same in all colours when grey; clamped."""
    channels = 1 if grey else 3
    noise = torch.randn(1, channels, *image.shape[-2:], generator=generator, device=image.device, dtype=image.dtype)
    return (image + noise * (sigma / 255)).clamp(0, 1)


def poisson_noise(image: Tensor, scale: float, grey: bool, generator: torch.Generator) -> Tensor:
    """With shot noise added: what counting photons would add if the picture's levels were counts, times `scale`."""
    rounded = to_eight_bits(image)
    if grey:
        rounded = (rounded * image.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
        rounded = to_eight_bits(rounded)
    counts = 2.0 ** torch.log2(_levels(rounded)).ceil()
    noise = torch.poisson(rounded * counts, generator=generator) / counts - rounded
    return (image + noise * scale).clamp(0, 1)


def _levels(image: Tensor) -> Tensor:
    """How many levels of 8 bits occur, as a number on the device."""
    seen = torch.zeros(256, device=image.device, dtype=image.dtype)
    return seen.index_fill_(0, (image * 255).round().long().flatten(), 1.0).sum()
