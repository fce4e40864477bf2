"""Convolutions whose input channels are scaled for each sample by a style, and whose outputs are scaled back.

b batch, i input channels, o output channels, k side of the kernel. The weights of a sample are W s d with the style
s (b, i) and the demodulation d = 1 / sqrt(sum over i, k, k of (W s)^2 + eps), (b, o) (Karras et al. 2020, equations 1
and 3). Wide kernels scale the input and the output instead of the weights: one convolution does for the whole batch.
Kernels of one pixel are a matrix product with each sample's own, small weights, and touch the images but once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.models.gan.filtering import Factors, plan_resample, resample

EPSILON = 1e-8


def bounded(weight: Tensor, styles: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and styles scaled so that float16 cannot overflow; demodulation undoes any such scale."""
    if dtype != torch.float16:
        return weight, styles
    fan_in = weight[0].numel()
    largest = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
    return weight / (largest * fan_in**0.5), styles / styles.abs().amax(1, keepdim=True)


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """(b, o) from weight (o, i, ...) and styles (b, i), without a copy of the weights for each sample."""
    energy = weight.square().flatten(2).sum(2) if weight.ndim > 2 else weight.square()
    return (styles.square() @ energy.t() + EPSILON).rsqrt()


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    scales: Tensor | None,
    *,
    padding: int = 0,
    up_factors: Factors | None = None,
) -> Tensor:
    """x (b, i, h, w), weight (o, i, k, k), styles (b, i), scales of the outputs (b, o) or None -> (b, o, h', w').

    With `up_factors` the size is doubled: a transposed convolution, then that filter.
    """
    styles = styles.to(x.dtype)
    if weight.shape[-1] == 1 and up_factors is None:
        product = modulated_product(x.flatten(2), weight.flatten(1), styles, scales)
        return product.view(x.shape[0], -1, *x.shape[2:])
    weight = weight.to(x.dtype)
    x = x * styles[:, :, None, None]
    if up_factors is None:
        y = F.conv2d(x, weight, padding=padding)
    else:
        y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        size = (y.shape[2], y.shape[3])
        y = resample(y, plan_resample(up_factors, size, padding=(1, 1, 1, 1), gain=4.0))
    return y if scales is None else y * scales.to(y.dtype)[:, :, None, None]


def modulated_product(x: Tensor, weight: Tensor, styles: Tensor, scales: Tensor | None) -> Tensor:
    """x (b, i, n), weight (o, i), styles (b, i), scales (b, o) or None -> (b, o, n)."""
    own = weight.to(styles.dtype)[None] * styles[:, None, :]
    if scales is not None:
        own = own * scales.to(own.dtype)[:, :, None]
    return torch.bmm(own.to(x.dtype), x)
