"""Losses that keep colours and brightness, and leave detail to others.

Letters: b batch, h w pixels. Pictures are (b, 3, h, w) from 0 to 1.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lora_trainer.losses.colour_spaces import cbcr_bt601, lightness
from lora_trainer.losses.full_precision import full_precision
from lora_trainer.losses.gaussian import filtered, gaussian_window
from lora_trainer.losses.pixel import difference_named, per_sample

BLUR_PX, BLUR_SIGMA_PX = 5, 0.5
DARKEST = 1e-12  # keeps black from having no direction
FLAT = 1e-8  # a variance far below that of one step of 8 bits, 1.5e-5


@full_precision
def color_loss(output: Tensor, target: Tensor, criterion: str = "l1", scale: int = 4) -> Tensor:
    """(b,) the difference of Cb and Cr in studio range, averaged over blocks of ``scale`` pixels. Raises Refusal."""
    found, wanted = (F.avg_pool2d(cbcr_bt601(image), int(scale)) for image in (output, target))
    return per_sample(difference_named(criterion)(found, wanted))


@full_precision
def luma_loss(output: Tensor, target: Tensor, criterion: str = "l1") -> Tensor:
    """(b,) the difference of CIE L*, from 0 to 1. Raises Refusal."""
    return per_sample(difference_named(criterion)(lightness(output), lightness(target)))


@full_precision
def average_loss(output: Tensor, target: Tensor, criterion: str = "l1", scale: int = 4) -> Tensor:
    """(b,) the difference of the means of blocks of ``scale`` pixels. Raises Refusal."""
    found, wanted = (F.avg_pool2d(image, int(scale)) for image in (output, target))
    return per_sample(difference_named(criterion)(found, wanted))


@full_precision
def bicubic_loss(output: Tensor, target: Tensor, criterion: str = "l1", scale: int = 4) -> Tensor:
    """(b,) the difference of the pictures made ``scale`` times smaller and a little blurred. Raises Refusal."""
    return per_sample(difference_named(criterion)(_smaller(output, scale), _smaller(target, scale)))


@full_precision
def cosim_loss(output: Tensor, target: Tensor, cosim_lambda: float = 5.0) -> Tensor:
    """(b,) ``cosim_lambda`` times 1 minus the cosine of the angle between the colours, whatever their brightness."""
    x, y = (image.clamp(DARKEST, 1) for image in (output, target))
    cosine = (x * y).sum(1) / (x.square().sum(1).sqrt() * y.square().sum(1).sqrt())
    return cosim_lambda * (1 - per_sample(cosine))


@full_precision
def ncc_loss(output: Tensor, target: Tensor) -> Tensor:
    """(b,) from 0 for colours that rise and fall together to 1 for opposite ones; the mean over the three.

    Two flat pictures agree; a flat one and another do not correlate, 0.5.
    """
    x, y = (image.flatten(2) - image.flatten(2).mean(2, keepdim=True) for image in (output, target))
    covariance = (x * y).mean(2) + FLAT
    spread = (x.square().mean(2) + FLAT).sqrt() * (y.square().mean(2) + FLAT).sqrt()
    return (1 - (covariance / spread).mean(1)) / 2


def _smaller(image: Tensor, scale: int) -> Tensor:
    size = [side // int(scale) for side in image.shape[-2:]]
    small = F.interpolate(image, size=size, mode="bicubic", antialias=True)
    padded = F.pad(small, [BLUR_PX // 2] * 4, mode="reflect")
    return filtered(padded, gaussian_window(BLUR_PX, BLUR_SIGMA_PX), padded=False)
