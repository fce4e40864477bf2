"""What validation measures: PSNR, SSIM and MS-SSIM, defined as in BasicSR and the programs after it.

Pictures are (b, 3, h, w) from 0 to 1. They are measured as 8-bit files would be: rounded to 0 to 255, in float64.
With ``test_y_channel`` it is the luma in studio range, as MATLAB's rgb2ycbcr gives it, without another rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.losses import ssim as similarity
from lora_trainer.losses.colour_spaces import y_bt601
from lora_trainer.losses.pixel import per_sample, squared

BRIGHTEST = 255.0


def psnr(image: Tensor, target: Tensor, crop_border: int = 0, test_y_channel: bool = False) -> Tensor:
    """(b,) in dB; infinite for equal pictures. Raises Refusal when the crop leaves nothing."""
    x, y = _measured(image, target, crop_border, test_y_channel)
    return 10 * torch.log10(BRIGHTEST**2 / per_sample(squared(x, y)))


def ssim(image: Tensor, target: Tensor, crop_border: int = 0, test_y_channel: bool = False) -> Tensor:
    """(b,) the mean over the channels, and over the places where the whole window is in the picture. Raises Refusal."""
    x, y = _measured(image, target, crop_border, test_y_channel, least_px=similarity.WINDOW_PX)
    return similarity.ssim(x, y, BRIGHTEST)


def ms_ssim(image: Tensor, target: Tensor, crop_border: int = 0, test_y_channel: bool = False) -> Tensor:
    """(b,) at five sizes, with luminance at the smallest. Raises Refusal."""
    x, y = _measured(image, target, crop_border, test_y_channel, least_px=similarity.WINDOW_PX)
    return similarity.ms_ssim(x, y, BRIGHTEST)


def _measured(
    image: Tensor, target: Tensor, crop_border: int, test_y_channel: bool, least_px: int = 1
) -> tuple[Tensor, Tensor]:
    if image.shape != target.shape:
        raise ValueError(f"a picture of the shape {tuple(image.shape)} is measured against {tuple(target.shape)}")
    height, width = image.shape[-2:]
    if min(height, width) - 2 * crop_border < least_px:
        raise Refusal(
            f"a picture of {height} x {width} px (height x width) is too small to measure with crop_border "
            f"{crop_border}; after the crop {least_px} px must be left"
        )
    inner = (..., slice(crop_border, height - crop_border), slice(crop_border, width - crop_border))
    x, y = (_pixels(each[inner], test_y_channel) for each in (image, target))
    return x, y


def _pixels(image: Tensor, test_y_channel: bool) -> Tensor:
    pixels = (image.double().clamp(0, 1) * BRIGHTEST).round()
    return y_bt601(pixels / BRIGHTEST) * BRIGHTEST if test_y_channel else pixels
