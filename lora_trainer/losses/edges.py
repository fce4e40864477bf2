"""Losses that compare edges: gradients of the luma, or of each colour.

Letters: b batch, h w pixels. Pictures are (b, 3, h, w) from 0 to 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.losses.colour_spaces import luma_lhm, luma_yiq
from lora_trainer.losses.full_precision import full_precision
from lora_trainer.losses.pixel import difference_named, per_sample, squared


def sobel(plane: Tensor) -> tuple[Tensor, Tensor]:
    """(b, 1, h, w) each: the gradient to the right and downwards, with Sobel's weights 1 2 1; zeros are outside."""
    padded = F.pad(plane, (1, 1, 1, 1))
    smooth_down = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    smooth_right = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    return smooth_down[..., 2:] - smooth_down[..., :-2], smooth_right[..., 2:, :] - smooth_right[..., :-2, :]


@full_precision
def sobel_edge_loss(output: Tensor, target: Tensor) -> Tensor:
    """(b,) mean squared difference of the gradients, divided by 4."""
    gradients = (torch.cat(sobel(luma_yiq(image)), dim=1) / 4 for image in (output, target))
    return per_sample(squared(*gradients))


@full_precision
def gradient_l1_loss(output: Tensor, target: Tensor) -> Tensor:
    """(b,) mean absolute difference of the steps from pixel to pixel, to the right and downwards, of each colour."""
    apart = output - target
    right, down = apart[..., 1:] - apart[..., :-1], apart[..., 1:, :] - apart[..., :-1, :]
    return (per_sample(right.abs()) + per_sample(down.abs())) / 2


@full_precision
def gradient_variance_loss(
    output: Tensor, target: Tensor, patch_size: int = 16, criterion: str = "charbonnier"
) -> Tensor:
    """(b,) how the variances of the gradients differ from patch to patch (Abrahamyan et al. 2022).

    What is left of a picture beyond whole patches does not count. Raises Refusal.
    """
    if patch_size < 2 or patch_size > min(output.shape[-2:]):
        height, width = output.shape[-2:]
        raise Refusal(
            f"patch_size {patch_size} does not fit crops of {height} x {width} px; write 2 to the crop's side"
        )
    differ = difference_named(criterion)
    total = output.new_zeros(output.shape[0])
    for found, wanted in zip(sobel(luma_lhm(output)), sobel(luma_lhm(target)), strict=True):
        total = total + per_sample(differ(_variances(found, patch_size), _variances(wanted, patch_size)))
    return total


def _variances(plane: Tensor, patch_size: int) -> Tensor:
    """(b, patches) unbiased."""
    return F.unfold(plane, patch_size, stride=patch_size).var(1)
