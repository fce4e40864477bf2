"""Products with frozen weights in 8 bits: with the widened weight, or in 8 bits on both sides (W8A8, int8 alone).

For the latter each row of what comes in is divided by its largest number and rounded to int8, as the rows of the weight
are; tensor cores multiply int8 at two to four times the rate of 16 bits and sum up in 32, and both factors go into the
result. In the backward pass the weight's factors go into the gradient, before that is rounded. Letters: n tokens, i and
o features in and out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST = 127.0
LEAST_TOKENS = 32  # below which CUDA has no such product, and the weight is most of the work anyway
STEP = 8  # features come in multiples of it
CAPABILITY = (7, 5)  # of a card: Turing's tensor cores were the first to multiply int8


def multiplies_int8(device: torch.device) -> bool:
    """CPUs do; of NVIDIA's cards those with tensor cores for it."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= CAPABILITY


def widened(weight: Tensor, row_scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weight in the format of the pass; itself where it is that already."""
    wide = weight.to(dtype)
    return wide if row_scale is None else wide.mul_(row_scale)


def product(x: Tensor, weight: Tensor, row_scale: Tensor | None, bias: Tensor | None, in_8_bits: bool) -> Tensor:
    """x (n, i), weight (o, i), row_scale (o, 1) or None, bias (o,) or None -> (n, o), all in the format of x."""
    if row_scale is None or not (in_8_bits and _suits(x, weight)):
        return F.linear(x, widened(weight, row_scale, x.dtype), bias)
    narrow, scale = _rounded_rows(x)
    y = torch._int_mm(narrow, weight.t()).to(torch.float32).mul_(scale).mul_(row_scale.t())
    return (y if bias is None else y.add_(bias)).to(x.dtype)


def product_back(of_y: Tensor, weight: Tensor, row_scale: Tensor | None, in_8_bits: bool) -> Tensor:
    """The gradient of x (n, i) from that of the result (n, o)."""
    if row_scale is None or not (in_8_bits and _suits(of_y, weight)):
        return of_y @ widened(weight, row_scale, of_y.dtype)
    narrow, scale = _rounded_rows(of_y * row_scale.t())
    return torch._int_mm(narrow, weight).to(torch.float32).mul_(scale).to(of_y.dtype)


def _suits(x: Tensor, weight: Tensor) -> bool:
    return len(x) >= LEAST_TOKENS and not any(size % STEP for size in weight.shape)


def _rounded_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """(n, i) -> int8 of the same shape, and the float32 factor of each row, (n, 1)."""
    scale = x.abs().amax(dim=1, keepdim=True).float().clamp_(min=torch.finfo(torch.float32).tiny * LARGEST) / LARGEST
    return (x / scale).round_().to(torch.int8), scale
