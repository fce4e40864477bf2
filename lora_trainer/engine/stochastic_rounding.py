"""Weights in bf16 that learn from small updates: the step is taken in float32 and rounded up or down by chance."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from lora_trainer.draws import draw_key
from lora_trainer.engine.joined_optimizer import single_optimizers

SPOKEN = {"no": "float32", "fp16": "fp16"}
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
    """Within, bf16 weights and their gradients are float32, for an optimizer's step; afterwards they are bf16 again, in
    the memory where they were, and the gradients are gone.

    This costs eight bytes a number of `weights` within, and whatever the optimizer remembers is float32: twice what it
    would be beside bf16 weights, unless it is an 8-bit optimizer. Not for optimizers that move their weights outside a
    step too (schedule-free ones). Not under DDP, which loses weights that change their format.
    """
    low = {}
    for name, weight in weights.items():
        if weight.dtype == torch.bfloat16 and weight.grad is not None:
            gradient, weight.grad = weight.grad.float(), None
            low[name], weight.data = weight.data, weight.data.float()
            weight.grad = gradient
    try:
        yield
    finally:
        for name, values in low.items():
            weight = weights[name]
            weight.grad = None
            weight.data = values.copy_(rounded(weight.data, seed, step, name))


def rounding_problems(optimizer: torch.optim.Optimizer, mixed_precision: str) -> list[str]:
    """Why bf16 weights cannot be trained so; empty when they can."""
    problems = []
    if mixed_precision != "bf16":
        problems.append(f"weights in bf16 need passes in bf16; these would be in {SPOKEN[mixed_precision]}")
    if callable(getattr(optimizer, "eval", None)):
        problems.append("a schedule-free optimizer moves its weights outside its steps too, where bf16 loses them")
    return problems


@torch.no_grad()
def step_rounded(
    optimizer: torch.optim.Optimizer,
    weights: Mapping[str, nn.Parameter],
    seed: int,
    step: int,
    found_inf: Tensor | None = None,
) -> None:
    """The step of an optimizer over bf16 weights. One that is joined of several holds float32 copies of the weights of
    one at a time. `found_inf` is for optimizers that skip by themselves."""
    names: dict[Tensor, str] = {weight: name for name, weight in weights.items()}
    for part in single_optimizers(optimizer):
        if found_inf is not None:
            part.grad_scale, part.found_inf = None, found_inf  # type: ignore[attr-defined]
        with _float32_stand_ins(part, names, seed, step):
            part.step()


@contextlib.contextmanager
def _float32_stand_ins(
    optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str], seed: int, step: int
) -> Iterator[None]:
    """`float32_step` with other parameters in the optimizer, so that DDP goes on exchanging the gradients of these."""
    replaced: list[tuple[list[Tensor], int, Tensor]] = []
    state = optimizer.state
    for group in optimizer.param_groups:
        for place, weight in enumerate(group["params"]):
            if weight.dtype == torch.bfloat16 and weight.grad is not None:
                gradient, weight.grad = weight.grad.float(), None
                stand_in = nn.Parameter(weight.detach().float())
                stand_in.grad = gradient
                if weight in state:
                    state[stand_in] = state.pop(weight)
                group["params"][place] = stand_in
                replaced.append((group["params"], place, weight))
    try:
        yield
    finally:
        for parameters, place, weight in replaced:
            stand_in, parameters[place] = parameters[place], weight  # type: ignore[assignment]
            if stand_in in state:
                state[weight] = state.pop(stand_in)
            weight.copy_(rounded(stand_in.detach(), seed, step, names[weight]))
