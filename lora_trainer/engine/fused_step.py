"""Each weight is updated as soon as its gradient is whole, and the gradient is freed: one is in memory at a time."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.engine.joined_optimizer import JoinedOptimizer, single_optimizers
from lora_trainer.engine.optimizers import Group, optimizer_maker
from lora_trainer.engine.stochastic_rounding import float32_step
from lora_trainer.errors import Refusal


def fused_problems(passes: int, max_grad_norm: float, processes: int, mixed_precision: str) -> list[str]:
    """Why gradients cannot be used up within the backward pass; empty when they can."""
    problems = []
    if passes > 1:
        problems.append(f"gradients of {passes} passes cannot be added up when each is used at once; set it to 1")
    if max_grad_norm > 0:
        problems.append("clipping needs the norm of all gradients, which are never there together; set it to 0")
    if processes > 1:
        problems.append(f"{processes} processes would have to exchange gradients that are gone; start one")
    if mixed_precision == "fp16":
        problems.append("fp16 decides about a step when all gradients are known; use bf16")
    return problems


def optimizer_per_weight(
    name: str, groups: Sequence[Group], options: Mapping[str, Any], key: str = "optimizer_args"
) -> JoinedOptimizer:
    """One optimizer a weight, in the groups' order, for `FusedStep`. Refusal of those that look at all weights."""
    make = optimizer_maker(name, options, key)
    parts = [
        make([Group(group.name, group.rate, {weight: group.weights[weight]}, group.until)])
        for group in groups
        for weight in group.weights
    ]
    if any("d" in group for part in parts[:1] for group in part.param_groups):
        raise Refusal(f'the optimizer "{name}" estimates one rate from all weights together, so none can go first')
    return JoinedOptimizer(parts)


class FusedStep:
    """Hooks that step the optimizer of a weight when its gradient is there.

    Set the rates, and call `begin`, before the backward pass; call `finish` after it. When the loss is not finite
    nothing moves. A gradient that is not finite changes neither its weight nor the tensors of its state, and neither
    any that follows in the same pass; those before it have moved. With a `rounding_seed` each step is taken in float32
    and rounded to bf16.
    """

    def __init__(
        self, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, rounding_seed: int | None = None
    ) -> None:
        self._parts = _by_weight(optimizer)
        self._rounding_seed = rounding_seed
        self._number = 0
        self._squares = torch.zeros((), device=next(iter(weights.values())).device)
        self._handles = []
        # by a weak name: what a hook holds, the collector does not see, and a weight would keep itself alive for ever
        own = weakref.WeakMethod(self._step)
        for name, weight in weights.items():
            weight.requires_grad_(True)  # without it no hook can be set; it stays when this is taken back
            hook = partial(_stepped, own, name)
            self._handles.append(weight.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]

    def begin(self, number: int, loss: Tensor) -> None:
        """Before the backward pass of this loss in the optimizer step of this number."""
        self._number = number
        self._squares = loss.detach().float() * 0  # NaN from the beginning when the loss is not finite

    def finish(self) -> tuple[Tensor, Tensor]:
        """The norm of all gradients of the pass, and 1 if one or the loss was not finite; both on the device."""
        return self._squares.sqrt(), self._bad()

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _bad(self) -> Tensor:
        return (~self._squares.isfinite()).float()  # a sum never becomes finite again

    @torch.no_grad()
    def _step(self, name: str, weight: nn.Parameter) -> None:
        assert weight.grad is not None
        part = self._parts[weight]
        self._squares += torch.linalg.vector_norm(weight.grad, dtype=torch.float32).square()
        bad, seed = self._bad(), self._rounding_seed
        with contextlib.nullcontext() if seed is None else float32_step({name: weight}, seed, self._number):
            if getattr(part, "_step_supports_amp_scaling", False):
                part.grad_scale, part.found_inf = None, bad  # type: ignore[attr-defined]
                part.step()
            else:
                _guarded(weight, part, bad > 0)
        weight.grad = None


def _stepped(own: Callable[[], Callable[[str, nn.Parameter], None] | None], name: str, weight: nn.Parameter) -> None:
    if (step := own()) is not None:
        step(name, weight)


def _by_weight(optimizer: torch.optim.Optimizer) -> dict[Tensor, torch.optim.Optimizer]:
    found = {}
    for part in single_optimizers(optimizer):
        weights = [weight for group in part.param_groups for weight in group["params"]]
        if len(weights) != 1:
            raise ValueError("a phase that is fused needs the optimizer that optimizer_per_weight makes")
        found[weights[0]] = part
    return found


def _guarded(weight: Tensor, part: torch.optim.Optimizer, bad: Tensor) -> None:
    """A step that the device takes back when it should not have been; the host never waits to know."""
    assert weight.grad is not None
    weight.grad = torch.where(bad, torch.zeros_like(weight.grad), weight.grad)
    state = part.state.get(weight, {})
    before = {key: value.clone() for key, value in state.items() if torch.is_tensor(value)}
    old = weight.detach().clone()
    part.step()
    weight.copy_(torch.where(bad, old, weight))
    for key, value in before.items():
        now = part.state[weight][key]
        now.copy_(torch.where(bad.to(now.device), value, now))
