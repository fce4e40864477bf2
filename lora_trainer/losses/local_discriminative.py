"""LDL: pay attention to artifacts, that is to differences that vary a lot from pixel to pixel (Liang et al. 2022).

Letters: b batch, h w pixels. Pictures are (b, 3, h, w) from 0 to 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.losses.full_precision import full_precision
from lora_trainer.losses.pixel import difference_named, per_sample

WINDOW_PX = 7
LEAST_VARIANCE = 1e-12  # below it the fifth root would have a gradient without bounds


@full_precision
def ldl_loss(
    output: Tensor, target: Tensor, ema_output: Tensor, criterion: str = "l1", ksize: int = WINDOW_PX
) -> Tensor:
    """(b,) the difference, weighted by how likely a pixel is an artifact. Raises Refusal for an unknown criterion."""
    weights = artifact_map(output, target, ema_output, ksize)
    return per_sample(difference_named(criterion)(weights * output, weights * target))


def artifact_map(output: Tensor, target: Tensor, ema_output: Tensor, ksize: int = WINDOW_PX) -> Tensor:
    """(b, 1, h, w) the residual's variance around each pixel times the fifth root of its variance in the picture.

    0 where the average of the generator's weights, ``ema_output``, is further from the target than the generator.
    """
    residual = (target - output).abs().sum(1, keepdim=True)
    residual_ema = (target - ema_output).abs().sum(1, keepdim=True)
    whole = residual.flatten(1).var(1).clamp(min=LEAST_VARIANCE) ** 0.2
    weights = whole.view(-1, 1, 1, 1) * _local_variance(residual, ksize)
    return torch.where(residual < residual_ema, 0.0, weights)


def _local_variance(residual: Tensor, ksize: int) -> Tensor:
    """(b, 1, h, w) unbiased, in a window whose part outside of the picture is its reflection."""
    centred = residual - residual.mean(dim=(1, 2, 3), keepdim=True)  # so that the subtraction below costs few digits
    padded = F.pad(centred, [(ksize - 1) // 2] * 4, mode="reflect")
    count = ksize * ksize
    mean, mean_square = (F.avg_pool2d(values, ksize, stride=1) for values in (padded, padded.square()))
    return (mean_square - mean.square()).clamp(min=0) * (count / (count - 1))
