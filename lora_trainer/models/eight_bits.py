"""Frozen weights in 8 bits, made wide where they are used: in the forward pass, and once more in the backward pass.

Each row of a weight (an output feature) is divided by its largest number and kept as float8_e4m3fn or int8 with that
factor. Autocast alone would keep every widened weight from the forward pass to the backward pass, and so save nothing
while it trains. Letters: o features or channels out.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from lora_trainer.models.eight_bit_products import Form, narrowed, product, product_back, widened


class EightBitLinear(nn.Linear):
    """`weight` (o, i) in 8 bits times `row_scale` (o, 1). `in_8_bits` is whether it multiplies so too, in int8."""

    row_scale: Tensor
    in_8_bits = False

    def forward(self, x: Tensor) -> Tensor:
        dtype = format_of_the_pass(x, self.weight)
        rows = x.to(dtype).reshape(-1, x.shape[-1])
        bias = _cast(self.bias, dtype)
        y: Tensor = _Linear.apply(rows, self.weight, self.row_scale, bias, self.in_8_bits)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], self.out_features)


class EightBitConv2d(nn.Conv2d):
    """`weight` (o, i / groups, height, width) in 8 bits times `row_scale` (o, 1, 1, 1)."""

    row_scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        dtype = format_of_the_pass(x, self.weight)
        how = (self.stride, self.padding, self.dilation, self.groups)
        result: Tensor = _Convolution.apply(x.to(dtype), self.weight, self.row_scale, _cast(self.bias, dtype), how)  # type: ignore[no-untyped-call]
        return result


SMALL: dict[type[nn.Module], Any] = {nn.Linear: EightBitLinear, nn.Conv2d: EightBitConv2d}


def store_in_8_bits(model: nn.Module, form: Form, multiply: bool = False) -> int:
    """Keep the weights of Linear layers and convolutions in 8 bits, for good; gives how many numbers that are.

    Norms, biases, embeddings and the first layer, from which diffusers takes the model's own format, stay as they are.
    With `multiply`, Linear layers in int8 round what comes in as well, and multiply in 8 bits.
    """
    numbers = 0
    for layer in _layers(model):
        narrow, scale = narrowed(layer.weight.detach(), form)
        layer.weight = _frozen(narrow)
        layer.register_buffer("row_scale", scale)
        layer.__class__ = SMALL[type(layer)]
        if isinstance(layer, EightBitLinear):
            layer.in_8_bits = multiply and form == "int8"
        numbers += narrow.numel()
    return numbers


def cast_to_fp8(model: nn.Module) -> int:
    """The same without factors and with layers that stay PyTorch's own, for who reads `weight` itself as LyCORIS does.

    Autocast makes them the format of the pass, so passes must run under it.
    """
    numbers = 0
    for layer in _layers(model):
        layer.weight = _frozen(layer.weight.detach().to(torch.float8_e4m3fn))
        numbers += layer.weight.numel()
    return numbers


def _layers(model: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    first = getattr(model, "conv_in", None)
    return [layer for layer in model.modules() if type(layer) in SMALL and layer is not first]  # type: ignore[misc]


def format_of_the_pass(x: Tensor, weight: Tensor) -> torch.dtype:
    """Autocast's, else the weight's own, or for a weight in 8 bits that of what comes in."""
    device = x.device.type
    known = torch.amp.is_autocast_available(device)  # the meta device has none
    if known and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype if weight.element_size() == 1 else weight.dtype


class _Linear(torch.autograd.Function):
    """Of x (n, i) and a frozen weight and bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, row_scale: Tensor, bias: Tensor | None, in_8_bits: bool) -> Tensor:
        ctx.save_for_backward(weight, row_scale)
        ctx.in_8_bits = in_8_bits
        return product(x, weight, row_scale, bias, in_8_bits)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, row_scale = ctx.saved_tensors
        return product_back(gradients[0], weight, row_scale, ctx.in_8_bits), None, None, None, None


class _Convolution(torch.autograd.Function):
    """Of x (b, i, height, width) and a frozen weight and bias; `how` is stride, padding, dilation and groups."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, row_scale: Tensor, bias: Tensor | None, how: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(weight, row_scale)
        ctx.how, ctx.shape = how, x.shape
        return F.conv2d(x, widened(weight, row_scale, x.dtype), bias, *how)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_y,) = gradients
        weight, row_scale = ctx.saved_tensors
        of_x = conv2d_input(ctx.shape, widened(weight, row_scale, of_y.dtype), of_y, *ctx.how)  # type: ignore[no-untyped-call]
        return of_x, None, None, None, None


def _cast(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if bias is None else bias.to(dtype)


def _frozen(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)
