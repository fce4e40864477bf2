"""Train SPAN's threefold convolutions as the one convolution that they amount to.

SPAN (Wan et al. 2024) trains 1x1, 3x3 and 1x1 convolutions beside a 1x1 skip where it later uses a single 3x3. Nothing
stands between them, so that their product can be formed from the weights alone, in every step and with gradients, and
pictures pass through one convolution with a quarter of the sums. Up to rounding the training is the same.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

THREEFOLD = "Conv3XC"
SLOPE = 0.05


def fuse_threefold(module: nn.Module) -> int:
    """Have every threefold convolution inside pass its input through their product while training. Gives their number.

    Weights, names and what eval mode does stay as they are.
    """
    found = [part for part in module.modules() if type(part).__name__ == THREEFOLD]
    for part in found:
        part.forward = functools.partial(_forward, part)
    return len(found)


def product(part: Any) -> tuple[Tensor, Tensor]:
    """Weight (out, in, 3, 3) and bias (out,) of the one convolution, with gradients to the three and the skip."""
    first, second, third = part.conv
    inner = torch.einsum("omhw,mi->oihw", second.weight, first.weight[:, :, 0, 0])
    weight = torch.einsum("po,oihw->pihw", third.weight[:, :, 0, 0], inner)
    weight = weight + F.pad(part.sk.weight, (1, 1, 1, 1))
    # the border is padded before the first convolution, so its bias reaches all nine taps everywhere
    bias = second.weight.sum((2, 3)) @ first.bias + second.bias
    return weight, third.weight[:, :, 0, 0] @ bias + third.bias + part.sk.bias


def _forward(part: Any, x: Tensor) -> Tensor:
    if not part.training:
        evaluated: Tensor = type(part).forward(part, x)
        return evaluated
    with torch.autocast(x.device.type, enabled=False):  # products of halves would lose what three weights hold
        weight, bias = product(part)
    out = F.conv2d(x, weight, bias, stride=part.stride, padding=1)
    return F.leaky_relu(out, SLOPE) if part.has_relu else out
