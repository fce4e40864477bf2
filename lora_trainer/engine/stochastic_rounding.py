"""Weights in bf16 that learn from small updates: the step is taken in float32 and rounded up or down by chance."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from lora_trainer.draws import draw_key

LOW_BITS = 16  # of a float32 number, which bf16 leaves out


@torch.no_grad()
def rounded(values: Tensor, seed: int, step: int, name: str) -> Tensor:
    """float32 values in bf16, each one of its two neighbours, so that the mean over many draws is the value itself.

    The draw is a function of (seed, step, name) and of the kind of device. What bf16 holds exactly stays as it is, NaN
    and Inf too.
    """
    generator = torch.Generator(values.device).manual_seed(draw_key(seed, step, name, "rounding") & (2**63 - 1))
    chance = torch.randint(0, 2**LOW_BITS, values.shape, dtype=torch.int32, device=values.device, generator=generator)
    bits = (values.contiguous().view(torch.int32) + chance) & -(2**LOW_BITS)
    return torch.where(values.isfinite(), bits.view(torch.float32), values).to(torch.bfloat16)


@contextlib.contextmanager
def float32_step(weights: Mapping[str, nn.Parameter], seed: int, step: int) -> Iterator[None]:
    """Within, bf16 weights and their gradients are float32, for an optimizer's step; afterwards they are bf16 again.

    This costs eight bytes a number of `weights` within, and whatever the optimizer remembers is float32: twice what it
    would be beside bf16 weights, unless it is an 8-bit optimizer. Not for optimizers that move their weights outside a
    step too (schedule-free ones).
    """
    low = {name: weight for name, weight in weights.items() if weight.dtype == torch.bfloat16}
    for weight in low.values():
        gradient, weight.grad = weight.grad, None
        weight.data = weight.data.float()
        weight.grad = None if gradient is None else gradient.float()
    try:
        yield
    finally:
        for name, weight in low.items():
            weight.grad = None
            weight.data = rounded(weight.data, seed, step, name)
