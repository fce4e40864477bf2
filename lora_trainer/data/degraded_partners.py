"""Degraded partners of clean pictures, made on their device by Real-ESRGAN's two rounds and brought back to size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lora_trainer.data.blur_kernels import sharpened
from lora_trainer.data.degradation import DegradationSettings, degrade, plan_degradation
from lora_trainer.data.resize import interpolate

USM_SIDE_PX = 51


@torch.no_grad()
def degraded_partners(gt: Tensor, keys: Sequence[int], settings: DegradationSettings, scale: int) -> Tensor:
    """(b, 3, h, w) from 0 to 1 -> the same; a picture's result follows from its key and its pixels alone.

    The second round ends at the size divided by `scale`, from where the picture is enlarged again.
    """
    size = (int(gt.shape[-2]), int(gt.shape[-1]))
    small = degrade(gt, [plan_degradation(settings, scale, size, key) for key in keys])
    return interpolate(small, size, "bicubic").clamp(0, 1)


@torch.no_grad()
def sharpened_originals(gt: Tensor) -> Tensor:
    """What Real-ESRGAN has its network aim at, (b, 3, h, w) from 0 to 1; the degraded partners are of these too."""
    return sharpened(gt, [USM_SIDE_PX] * len(gt))
