"""Noise that also teaches a model brightness and large shapes, which plain white noise leaves to it.

Every function works on one sample, (c, h, w), and takes its random numbers from the generator it is given. So the noise
of a sample is the same in whatever batch it stands, and can be made in a loader process before the step. A random
strength is meant for a whole batch, as in sd-scripts: draw it from a generator that is keyed by the step alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

SMALLEST_STRIDE, STRIDE_SPREAD = 2.0, 2.0  # each coarser level is 2 to 4 times smaller


def random_strength(strength: float, generator: Generator) -> float:
    """A strength between 0 and the given one."""
    return strength * float(torch.rand((), generator=generator))


def adaptive_strength(strength: float, scale: float, latents: Tensor) -> Tensor:
    """(c, 1, 1) the offset's strength plus ``scale`` times how far each channel's mean is from 0, and at least 0."""
    return (strength + scale * latents.mean(dim=(-2, -1), keepdim=True).abs()).clamp(min=0.0)


def offset_noise(noise: Tensor, strength: float | Tensor, generator: Generator) -> Tensor:
    """The noise with each channel shifted as a whole (Guttenberg 2023, "Diffusion with Offset Noise").

    ``strength`` is a number or one for each channel, (c, 1, 1). The shift is drawn on the CPU.
    """
    return noise + strength * offset_direction(noise.shape[0], generator).to(noise)


def offset_direction(channels: int, generator: Generator) -> Tensor:
    """(c, 1, 1) the shift at strength 1, for a strength that is only known later, when there are latents."""
    return torch.randn(channels, 1, 1, generator=generator)


def multires_noise(noise: Tensor, iterations: int, discount: float, generator: Generator) -> Tensor:
    """The noise with coarser noise on top of it, level by level, brought back to a standard deviation of 1.

    Level i is r**i times smaller, with r between 2 and 4, is enlarged bilinearly and counts ``discount**i`` (Whitaker
    2023, "Multi-Resolution Noise for Diffusion Model Training"). The sum is divided by its own standard deviation;
    sd-scripts divides by that of the batch, which would make a sample's noise depend on its batch mates.
    """
    channels, height, width = noise.shape
    total = noise.clone()
    for level in range(iterations):
        stride = (SMALLEST_STRIDE + STRIDE_SPREAD * float(torch.rand((), generator=generator))) ** level
        rows, columns = max(1, int(height / stride)), max(1, int(width / stride))
        coarse = torch.randn(1, channels, rows, columns, generator=generator)
        enlarged = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
        total += enlarged[0].to(total) * discount**level
        if rows == 1 or columns == 1:
            break
    return total / total.std()


def perturbed(noise: Tensor, gamma: float, generator: Generator) -> Tensor:
    """What to noise the input with, while the target keeps ``noise`` (Ning et al. 2023, "Input Perturbation")."""
    return noise + gamma * torch.randn(noise.shape, generator=generator).to(noise)
