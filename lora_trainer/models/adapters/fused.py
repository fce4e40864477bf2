"""A layer and its LoRA as one function: y = x W' + bias + scale * (x A') B', the second sum made in place.

peft's layers make two temporaries as wide as the result, and under autocast turn x into 32 bits and back. Here the
low-rank product is added to the base's own result, the scale is part of the multiplication, and the backward pass adds
the two gradients of x in the same way. Letters: b batch, n tokens or pixels, i and o features in and out, r rank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.models.eight_bit_products import product, product_back
from lora_trainer.models.eight_bits import EightBitConv2d, EightBitLinear, format_of_the_pass


class _LowRankLinear(torch.autograd.Function):
    """Of x (n, i), bias (o) or None, down (r, i) and up (o, r), all of one format, and a frozen weight (o, i) of any
    format, which is kept as it is; in 8 bits it has the factors `row_scale` (o, 1), and with `in_8_bits` the
    base multiplies so too."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        row_scale: Tensor | None,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float,
        in_8_bits: bool,
    ) -> Tensor:
        y = product(x, weight, row_scale, bias, in_8_bits)
        hidden = x @ down.t()
        ctx.save_for_backward(x, weight, row_scale, down, up, hidden)
        ctx.scale, ctx.in_8_bits = scale, in_8_bits
        return y.addmm_(hidden, up.t(), alpha=scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_y,) = gradients
        x, weight, row_scale, down, up, hidden = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        of_hidden = of_y @ up if wanted[0] or wanted[4] else None
        of_x = of_down = of_up = None
        if wanted[0] and of_hidden is not None:
            of_x = product_back(of_y, weight, row_scale, ctx.in_8_bits).addmm_(of_hidden, down, alpha=ctx.scale)
        if wanted[4] and of_hidden is not None:
            of_down = _scaled_product(of_hidden.t(), x, ctx.scale)
        if wanted[5]:
            of_up = _scaled_product(of_y.t(), hidden, ctx.scale)
        return of_x, None, None, None, of_down, of_up, None, None


def _scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale * a b, the scale within the multiplication; what is there before is not read (beta 0)."""
    empty = a.new_empty(a.shape[0], b.shape[1])
    return torch.addmm(empty, a, b, beta=0, alpha=scale)


def fused_linear(x: Tensor, base: nn.Linear, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The layer's result for x (..., i), in the format of the pass; equal to the plain sum up to rounding."""
    rows = _rows(x.reshape(-1, x.shape[-1]), base, base.weight, down, up, scale)
    return rows.view(*x.shape[:-1], len(up))


def fused_pointwise(x: Tensor, base: nn.Conv2d, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The same for a 1 x 1 convolution of x (b, i, height, width); down and up are (r, i, 1, 1) and (o, r, 1, 1).

    x should lie in memory with the channels last, as the result does: else it is copied, and so is the result by what
    comes next.
    """
    b, i, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(-1, i)
    y = _rows(rows, base, base.weight.flatten(1), down.flatten(1), up.flatten(1), scale)
    return y.view(b, height, width, -1).permute(0, 3, 1, 2)


def is_fusible(base: nn.Module) -> bool:
    """A Linear or 1 x 1 convolution of torch's own class, with a frozen weight in a format that multiplies."""
    if isinstance(base, nn.Conv2d) and type(base) in (nn.Conv2d, EightBitConv2d):
        plain = (base.kernel_size, base.stride, base.padding, base.groups) == ((1, 1), (1, 1), (0, 0), 1)
    else:
        plain = type(base) in (nn.Linear, EightBitLinear)  # not other libraries' subclasses: quantised ones are some
    if not plain:
        return False
    weight = base.weight
    known = hasattr(base, "row_scale") or weight.dtype in _MULTIPLIED
    return isinstance(weight, Tensor) and not weight.requires_grad and known


_MULTIPLIED = (torch.float32, torch.bfloat16, torch.float16)


def _rows(x: Tensor, base: nn.Linear | nn.Conv2d, weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """Everything but the weight in the format of the pass; converted out here so that gradients go back to each one's
    own format. Within the function autocast would not do it: `addmm_` is not on its list, and the backward pass runs
    without."""
    dtype = format_of_the_pass(x, weight)
    bias = None if base.bias is None else base.bias.to(dtype)
    row_scale = getattr(base, "row_scale", None)
    row_scale = None if row_scale is None else row_scale.flatten(1)
    result: Tensor = _LowRankLinear.apply(  # type: ignore[no-untyped-call]
        x.to(dtype), weight, row_scale, bias, down.to(dtype), up.to(dtype), scale, getattr(base, "in_8_bits", False)
    )
    return result
