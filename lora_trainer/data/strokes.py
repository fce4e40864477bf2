"""Round and long marks with soft edges, as filters: what a motion or a lens out of focus makes of a point of light."""

from __future__ import annotations

import math

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from lora_trainer.data.blur_kernels import reflected


def stroke(length_px: float, angle: float, radius_px: float = 0.5, soft_px: float = 1.0, bend: float = 0.0) -> Tensor:
    """(k, k) float32 of odd side, 1 within the radius of a line through the middle, 0 beyond the soft edge.

    The angle is from the x axis towards y, in radians; a bent line is off by `bend` of its length in its middle.
    Without length it is a disc, and with half a pixel of radius too a single pixel.
    """
    half = math.ceil(length_px * (0.5 + abs(bend)) + radius_px + soft_px / 2)
    x = torch.arange(-half, half + 1, dtype=torch.float32)
    along = x[None, :] * math.cos(angle) + x[:, None] * math.sin(angle)
    across = x[:, None] * math.cos(angle) - x[None, :] * math.sin(angle)
    if length_px and bend:
        across = across - bend * length_px * (1 - 8 * (along / length_px).clamp(-0.5, 0.5).square())
    beyond = (along.abs() - length_px / 2).clamp(min=0)
    return ((radius_px - torch.hypot(beyond, across)) / soft_px + 0.5).clamp(0, 1)


def smeared(image: Tensor, kernel: Tensor) -> Tensor:
    """(b, c, h, w) with every pixel spread out as the kernel says; its sum is the caller's. The border is mirrored.

    By Fourier transforms, so that a large kernel costs as little as a small one.
    """
    pad = kernel.shape[-1] // 2
    padded = reflected(image, (pad, pad))
    height, width = image.shape[-2:]
    size = [next_fast_len(side, real=True) for side in padded.shape[-2:]]
    spectrum = torch.fft.rfft2(padded, s=size) * torch.fft.rfft2(kernel, s=size)
    spread: Tensor = torch.fft.irfft2(spectrum, s=size)[..., 2 * pad : 2 * pad + height, 2 * pad : 2 * pad + width]
    return spread
