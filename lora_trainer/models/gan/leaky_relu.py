"""Bias, leaky ReLU, gain and clamp as one function that keeps nothing but its own result."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SLOPE = 0.2
GAIN = math.sqrt(2)  # keeps the variance of normal activations


def leaky_relu(x: Tensor, gain: float = GAIN, clamp: float | None = None, slope: float = SLOPE) -> Tensor:
    """clamp(gain * leaky_relu(x), -clamp, clamp). A positive gain is cheaper within the weights before."""
    if torch.is_grad_enabled() and x.requires_grad:
        result: Tensor = _LeakyReLU.apply(x, gain, clamp, slope)  # type: ignore[no-untyped-call]
        return result
    return _forward(x, gain, clamp, slope)


def _forward(x: Tensor, gain: float, clamp: float | None, slope: float) -> Tensor:
    y = F.leaky_relu(x, slope)
    if gain != 1:
        y = y.mul_(gain)
    return y if clamp is None else y.clamp_(-clamp, clamp)


def _needed(clamp: float | None, y: Tensor) -> float | None:
    """The clamp, or None where it touches nothing; looking costs less than a mask, but on a GPU it would wait."""
    if clamp is None or y.device.type != "cpu":
        return clamp
    low, high = y.aminmax()
    return clamp if max(-float(low), float(high)) >= clamp else None


class _LeakyReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: float, clamp: float | None, slope: float) -> Tensor:
        y = _forward(x, gain, clamp, slope)
        ctx.save_for_backward(y)
        ctx.numbers = gain, _needed(clamp, y), slope
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (y,) = ctx.saved_tensors
        slopes: Tensor = _Slopes.apply(gradients[0], y.detach(), *ctx.numbers)  # type: ignore[no-untyped-call]
        return slopes, None, None, None


class _Slopes(torch.autograd.Function):
    """The derivative at a place: linear in the gradient, so that it is its own derivative; nothing bends at y."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, y: Tensor, gain: float, clamp: float | None, slope: float) -> Tensor:
        ctx.save_for_backward(y)
        ctx.numbers = gain, clamp, slope
        result: Tensor = torch.ops.aten.leaky_relu_backward(gradient, y, slope, True)
        if gain != 1:
            result = result.mul_(gain)
        return result if clamp is None else result.masked_fill_(y.abs() >= clamp, 0.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (y,) = ctx.saved_tensors
        result: Tensor = _Slopes.apply(gradients[0], y, *ctx.numbers)  # type: ignore[no-untyped-call]
        return result, None, None, None, None
