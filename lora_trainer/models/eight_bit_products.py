"""Numbers in 8 bits with a factor for each row, and products with them: with the widened weight, or in 8 bits on both
sides (W8A8, int8 alone).

For the latter each row of what comes in is divided by its largest number and rounded to int8, as the rows of the weight
are; tensor cores multiply int8 at two to four times the rate of 16 bits and sum up in 32, and both factors go into the
result. In the backward pass the weight's factors go into the gradient, before that is rounded. Letters: n tokens, i and
o features in and out.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Form = Literal["fp8", "int8"]
FORMS: dict[Form, tuple[torch.dtype, float]] = {  # and the largest number of it that is used
    "fp8": (torch.float8_e4m3fn, 448.0),
    "int8": (torch.int8, 127.0),
}
LEAST_TOKENS = 32  # below which the weight is most of the work; CUDA wants more than 16
STEP = 8  # features come in multiples of it


def multiplies_int8(device: torch.device) -> bool:
    """Whether both products work there; NVIDIA's cards have had tensor cores for it since the RTX 20 series."""
    x, weight, ones = (torch.ones(shape, device=device) for shape in ((64, 64), (32, 64), (32, 1)))
    narrow = weight.to(torch.int8)
    try:
        found = product(x, narrow, ones, None, in_8_bits=True), product_back(x[:, :32], narrow, ones, in_8_bits=True)
        return all(bool(((each - wanted).abs() < 1).all()) for each, wanted in zip(found, (64, 32), strict=True))
    except RuntimeError:  # NotImplementedError is one
        return False


def narrowed(rows: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """A weight (o, ...) or rows of numbers in 8 bits, and the float32 factor of each row, (o, 1, ...)."""
    dtype, largest = FORMS[form]
    rows = rows.float()
    scale = rows.flatten(1).abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny * largest) / largest
    scale = scale.view(-1, *[1] * (rows.dim() - 1))
    rows = rows / scale
    return (rows.round() if form == "int8" else rows).clamp(-largest, largest).to(dtype), scale


def widened(weight: Tensor, row_scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weight in the format of the pass; itself where it is that already."""
    wide = weight.to(dtype)
    return wide if row_scale is None else wide.mul_(row_scale)


def product(x: Tensor, weight: Tensor, row_scale: Tensor | None, bias: Tensor | None, in_8_bits: bool) -> Tensor:
    """x (n, i), weight (o, i), row_scale (o, 1) or None, bias (o,) or None -> (n, o), all in the format of x."""
    if row_scale is None or not (in_8_bits and _suits(x, weight)):
        return F.linear(x, widened(weight, row_scale, x.dtype), bias)
    y = _int8_product(x, weight.t()).mul_(row_scale.t())
    return (y if bias is None else y.add_(bias)).to(x.dtype)


def product_back(of_y: Tensor, weight: Tensor, row_scale: Tensor | None, in_8_bits: bool) -> Tensor:
    """The gradient of x (n, i) from that of the result (n, o)."""
    if row_scale is None or not (in_8_bits and _suits(of_y, weight)):
        return of_y @ widened(weight, row_scale, of_y.dtype)
    columns = weight.t().contiguous().t()
    return _int8_product(of_y * row_scale.t(), columns).to(of_y.dtype)


def _suits(x: Tensor, weight: Tensor) -> bool:
    return len(x) >= LEAST_TOKENS and not any(size % STEP for size in weight.shape)


def _int8_product(rows: Tensor, columns: Tensor) -> Tensor:
    """(n, a) times int8 (a, b) -> float32 (n, b). Not all cards multiply int8 unless rows lie in memory as rows, and
    columns as columns."""
    narrow, scale = narrowed(rows, "int8")
    return torch._int_mm(narrow.contiguous(), columns).to(torch.float32).mul_(scale)
