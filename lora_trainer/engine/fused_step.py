"""Each weight is updated as soon as its gradient is whole, and the gradient is freed: one is in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.engine.joined_optimizer import JoinedOptimizer
from lora_trainer.engine.optimizers import Group, make_optimizer


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
    """One optimizer a weight, in the groups' order, for `FusedStep`. Raises Refusal."""
    return JoinedOptimizer(
        [
            make_optimizer(
                name, [Group(group.name, group.rate, {weight: group.weights[weight]}, group.until)], options, key
            )
            for group in groups
            for weight in group.weights
        ]
    )


class FusedStep:
    """Hooks that step the optimizer of a weight when its gradient is there.

    Set the rates before the backward pass; call `finish` after it. A gradient that is not finite changes neither its
    weight nor the tensors of its state, and neither any that follows in the same pass; those before it have moved.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], optimizer: JoinedOptimizer) -> None:
        parts = {part.param_groups[0]["params"][0]: part for part in optimizer.parts}
        device = next(iter(weights.values())).device
        self._squares = torch.zeros((), device=device)
        self._bad = torch.zeros((), device=device)
        self._handles = []
        for weight in weights.values():
            weight.requires_grad_(True)  # without it no hook can be set; it stays when this is taken back
            part = parts[weight]
            hook = partial(self._step, part=part)
            self._handles.append(weight.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]

    def finish(self) -> tuple[Tensor, Tensor]:
        """The norm of all gradients of the pass, and 1 if one was not finite; both on the device."""
        norm, bad = self._squares.sqrt(), self._bad
        self._squares, self._bad = torch.zeros_like(norm), torch.zeros_like(bad)
        return norm, bad

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def _step(self, weight: Tensor, part: torch.optim.Optimizer) -> None:
        assert weight.grad is not None
        square = weight.grad.float().square().sum()
        self._squares = self._squares + square
        self._bad = torch.maximum(self._bad, 1.0 - square.isfinite().float())
        if getattr(part, "_step_supports_amp_scaling", False):
            part.grad_scale, part.found_inf = None, self._bad  # type: ignore[attr-defined]
            part.step()
        else:
            self._guarded(weight, part)
        weight.grad = None

    def _guarded(self, weight: Tensor, part: torch.optim.Optimizer) -> None:
        """A step that the device takes back when it should not have been; the host never waits to know."""
        assert weight.grad is not None
        bad = self._bad > 0
        weight.grad = torch.where(bad, torch.zeros_like(weight.grad), weight.grad)
        state = part.state.get(weight, {})
        before = {key: value.clone() for key, value in state.items() if torch.is_tensor(value)}
        old = weight.detach().clone()
        part.step()
        weight.copy_(torch.where(bad, old, weight))
        for key, value in before.items():
            now = part.state[weight][key]
            now.copy_(torch.where(bad.to(now.device), value, now))
