"""A layer and its LoRA as one function: y = x W' + bias + scale * (x A') B', the second sum made in place.

peft's layers make two temporaries as wide as the result, and under autocast turn x into 32 bits and back. Here the
low-rank product is added to the base's own result, the scale is part of the multiplication, and the backward pass adds
the two gradients of x in the same way. Letters: b batch, n tokens or pixels, i and o features in and out, r rank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _LowRankLinear(torch.autograd.Function):
    """Of x (n, i), weight (o, i), bias (o) or None, down (r, i) and up (o, r), all of one format."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        y = x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
        hidden = x @ down.t()
        ctx.save_for_backward(x, weight, down, up, hidden)
        ctx.scale = scale
        return y.addmm_(hidden, up.t(), alpha=scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_y,) = gradients
        x, weight, down, up, hidden = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        of_hidden = of_y @ up if wanted[0] or wanted[3] else None
        of_x = of_down = of_up = None
        if wanted[0] and of_hidden is not None:
            of_x = (of_y @ weight).addmm_(of_hidden, down, alpha=ctx.scale)
        if wanted[3] and of_hidden is not None:
            of_down = _scaled_product(of_hidden.t(), x, ctx.scale)
        if wanted[4]:
            of_up = _scaled_product(of_y.t(), hidden, ctx.scale)
        return of_x, None, None, of_down, of_up, None


def _scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale * a b, the scale within the multiplication; what is there before is not read (beta 0)."""
    empty = a.new_empty(a.shape[0], b.shape[1])
    return torch.addmm(empty, a, b, beta=0, alpha=scale)


def fused_linear(x: Tensor, base: nn.Linear, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The layer's result for x (..., i), in the format of the pass; equal to the plain sum up to rounding."""
    x, weight, bias, down, up = _in_one_format(x, base.weight, base.bias, down, up)
    rows = x.reshape(-1, x.shape[-1])
    return _rows(rows, weight, bias, down, up, scale).view(*x.shape[:-1], -1)


def fused_pointwise(x: Tensor, base: nn.Conv2d, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The same for a 1 x 1 convolution of x (b, i, height, width); down and up are (r, i, 1, 1) and (o, r, 1, 1).

    x should lie in memory with the channels last, as the result does: else it is copied, and so is the result by what
    comes next.
    """
    x, weight, bias, down, up = _in_one_format(x, base.weight, base.bias, down, up)
    b, i, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(-1, i)
    y = _rows(rows, weight.flatten(1), bias, down.flatten(1), up.flatten(1), scale)
    return y.view(b, height, width, -1).permute(0, 3, 1, 2)


def is_fusible(base: nn.Module) -> bool:
    """A Linear or 1 x 1 convolution of torch's own class, with a frozen weight in a format that multiplies."""
    if type(base) is nn.Conv2d:
        plain = (base.kernel_size, base.stride, base.padding, base.groups) == ((1, 1), (1, 1), (0, 0), 1)
    else:
        plain = type(base) is nn.Linear  # not its subclasses: quantised layers are some
    if not plain:
        return False
    weight = base.weight
    return isinstance(weight, Tensor) and not weight.requires_grad and weight.dtype in _MULTIPLIED


_MULTIPLIED = (torch.float32, torch.bfloat16, torch.float16)


def _rows(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float) -> Tensor:
    result: Tensor = _LowRankLinear.apply(x, weight, bias, down, up, scale)  # type: ignore[no-untyped-call]
    return result


def _in_one_format(
    x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """Autocast's format, or the base's; converted out here so that gradients go back to each one's own format.

    Within the function autocast would not do it: `addmm_` is not on its list, and the backward pass runs without.
    """
    device = x.device.type
    known = torch.amp.is_autocast_available(device)  # the meta device has none
    dtype = torch.get_autocast_dtype(device) if known and torch.is_autocast_enabled(device) else weight.dtype
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype), down.to(dtype), up.to(dtype)
