"""What a restoration is measured by: PSNR and SSIM of the luma as pyiqa defines them, and 1 - SSIM as a loss.

Pictures are (b, 3, h, w) from 0 to 1; what lies outside is clamped where it is measured, and kept in the loss. The luma
is BT.601's in studio range. Unlike in `image_quality`, pictures are not rounded to 8 bits first, PSNR ends at 80 dB,
and SSIM rounds the luma to 0 to 255.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.losses import ssim as similarity
from lora_trainer.losses.colour_spaces import y_bt601
from lora_trainer.losses.full_precision import full_precision
from lora_trainer.losses.pixel import PSNR_EPS, per_sample, squared

BRIGHTEST = 255.0


@torch.no_grad()
def psnr_y(image: Tensor, target: Tensor) -> Tensor:
    """(b,) in dB, float64; 80 for equal pictures."""
    x, y = (y_bt601(each.double().clamp(0, 1)) for each in _alike(image, target))
    return -10 * torch.log10(per_sample(squared(x, y)) + PSNR_EPS)


@torch.no_grad()
def ssim_y(image: Tensor, target: Tensor) -> Tensor:
    """(b,) float64, over the places where the whole window is in the picture; negative structure counts as 0.

    Raises Refusal for a picture smaller than the window.
    """
    _refuse_small(image)
    x, y = ((y_bt601(each.double().clamp(0, 1)) * BRIGHTEST).round() for each in _alike(image, target))
    return similarity.ssim(x, y, BRIGHTEST, clamped=True)


@full_precision
def ssim_y_loss(output: Tensor, target: Tensor) -> Tensor:
    """(b,) 1 - SSIM of the luma, from 0 to 2, for training.

    Negative structure is kept and nothing is clamped or rounded: each of these would take the gradient away where the
    output is worst. Raises Refusal for a picture smaller than the window.
    """
    _refuse_small(output)
    x, y = (y_bt601(each) for each in _alike(output, target))
    return 1 - similarity.ssim(x, y)


def _alike(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if image.shape != target.shape:
        raise ValueError(f"a picture of the shape {tuple(image.shape)} is measured against {tuple(target.shape)}")
    return image, target


def _refuse_small(image: Tensor) -> None:
    height, width = image.shape[-2:]
    if min(height, width) < similarity.WINDOW_PX:
        raise Refusal(
            f"a picture of {height} x {width} px (height x width) is too small for SSIM; "
            f"both sides must have {similarity.WINDOW_PX} px"
        )
