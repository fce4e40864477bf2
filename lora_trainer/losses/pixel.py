"""Losses that compare a picture with its original pixel by pixel.

Letters: b batch, c channels, h w pixels. Pictures are (b, c, h, w) from 0 to 1; every loss is (b,).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.losses.colour_spaces import y_bt601
from lora_trainer.losses.full_precision import full_precision

Difference = Callable[[Tensor, Tensor], Tensor]  # elementwise, same shape
CHARBONNIER_EPS = 1e-12
PSNR_EPS = 1e-8


def per_sample(values: Tensor) -> Tensor:
    """(b,) the mean of each sample's elements."""
    return values.flatten(1).mean(1)


def absolute(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).abs()


def squared(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square()


def charbonnier(output: Tensor, target: Tensor, eps: float = CHARBONNIER_EPS) -> Tensor:
    """An absolute difference that is smooth at 0 (Lai et al. 2017); eps is added to the square."""
    return ((output - target).square() + eps).sqrt()


DIFFERENCES: Mapping[str, Difference] = {
    "l1": absolute,
    "l2": squared,
    "mse": squared,
    "charbonnier": charbonnier,
}


def difference_named(criterion: str) -> Difference:
    """The elementwise difference that a loss's `criterion` names. Raises Refusal."""
    if criterion not in DIFFERENCES:
        raise Refusal(f"there is no criterion {criterion!r}; write one of {', '.join(DIFFERENCES)}")
    return DIFFERENCES[criterion]


@full_precision
def l1_loss(output: Tensor, target: Tensor) -> Tensor:
    """(b,) mean absolute error."""
    return per_sample(absolute(output, target))


@full_precision
def mse_loss(output: Tensor, target: Tensor) -> Tensor:
    """(b,) mean squared error."""
    return per_sample(squared(output, target))


@full_precision
def charbonnier_loss(output: Tensor, target: Tensor, eps: float = CHARBONNIER_EPS) -> Tensor:
    """(b,) mean Charbonnier difference."""
    return per_sample(charbonnier(output, target, eps))


@full_precision
def psnr_loss(output: Tensor, target: Tensor, to_y: bool = False) -> Tensor:
    """(b,) minus the PSNR in dB, of the luma in studio range where ``to_y``; -80 for equal pictures."""
    if to_y:
        output, target = y_bt601(output), y_bt601(target)
    error = per_sample(squared(output, target))
    return 10 / math.log(10) * torch.log(error + PSNR_EPS)
