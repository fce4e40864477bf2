"""Degraded partners of clean pictures, made on their device by Real-ESRGAN's two rounds and brought back to size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lora_trainer.data.blur_kernels import sharpened
from lora_trainer.data.degradation import DegradationSettings, degrade, plan_degradation
from lora_trainer.data.resize import interpolate

SCALE = 4  # the second round ends at a quarter of the size, from where the picture is enlarged again
USM_SIDE_PX = 51
_MODES, _SHARES = ("area", "bilinear", "bicubic"), (1 / 3, 1 / 3, 1 / 3)
REAL_ESRGAN = DegradationSettings(
    blur_prob=1.0, kernel_range=(7, 21), sinc_prob=0.1, blur_sigma=(0.2, 3), betag_range=(0.5, 4), betap_range=(1, 2),
    resize_prob=(0.2, 0.7, 0.1), resize_mode_list=_MODES, resize_mode_prob=_SHARES, resize_range=(0.15, 1.5),
    gaussian_noise_prob=0.5, noise_range=(1, 30), poisson_scale_range=(0.05, 3), gray_noise_prob=0.4,
    jpeg_range=(30, 95),
    blur_prob2=0.8, kernel_range2=(7, 21), sinc_prob2=0.1, blur_sigma2=(0.2, 1.5),
    resize_prob2=(0.3, 0.4, 0.3), resize_mode_list2=_MODES, resize_mode_prob2=_SHARES, resize_range2=(0.3, 1.2),
    gaussian_noise_prob2=0.5, noise_range2=(1, 25), poisson_scale_range2=(0.05, 2.5), gray_noise_prob2=0.4,
    jpeg_range2=(30, 95),
    resize_mode_list3=_MODES, resize_mode_prob3=_SHARES, final_sinc_prob=0.8, final_kernel_range=(7, 21),
)  # fmt: skip


@torch.no_grad()
def degraded_partners(
    gt: Tensor, keys: Sequence[int], settings: DegradationSettings = REAL_ESRGAN, scale: int = SCALE
) -> Tensor:
    """(b, 3, h, w) from 0 to 1 -> the same; a picture's result follows from its key and its pixels alone."""
    size = (int(gt.shape[-2]), int(gt.shape[-1]))
    small = degrade(gt, [plan_degradation(settings, scale, size, key) for key in keys])
    return interpolate(small, size, "bicubic").clamp(0, 1)


@torch.no_grad()
def sharpened_originals(gt: Tensor) -> Tensor:
    """What Real-ESRGAN has its network aim at, (b, 3, h, w) from 0 to 1; the degraded partners are of these too."""
    return sharpened(gt, [USM_SIDE_PX] * len(gt))
