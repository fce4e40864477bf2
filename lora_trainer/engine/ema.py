"""The smoothed copy of a network: an exponential moving average of its weights."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.errors import Refusal


class Ema:
    """A float32 average of a module's weights; what the module remembers beside them is shared with it, not averaged.

    The decay of update number n, counted from 0, is `decay`, or with a `power` the smaller of it and
    1 - (1 + n / inv_gamma) ** -power (ema-pytorch's), so that the average follows quickly at first. Until
    `update_after` steps the copy is the module. Every `switch_every` steps the module becomes its copy. `only` names
    the weights to average, all without it. The averages lie beside the weights, or on `device`, which costs a copy and
    a wait in each update.
    """

    def __init__(
        self,
        module: nn.Module,
        decay: float = 0.999,
        *,
        power: float = 0.0,
        inv_gamma: float = 1.0,
        min_decay: float = 0.0,
        update_after: int = 0,
        switch_every: int = 0,
        only: Collection[str] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"decay must be from 0 to 1, found {decay}")
        self.module = module
        self.decay = decay
        self.power = power
        self.inv_gamma = inv_gamma
        self.min_decay = min_decay
        self.update_after = update_after
        self.switch_every = switch_every
        self._weights = {
            name: weight
            for name, weight in module.named_parameters()
            if weight.is_floating_point() and (only is None or name in only)
        }
        self._averages = {
            name: weight.detach().to(device=device, dtype=torch.float32, copy=True)
            for name, weight in self._weights.items()
        }
        self._depth = 0
        self._aside: dict[str, Tensor] = {}  # while swapped: weights that are in another format than their average

    def decay_at(self, update: int) -> float:
        """The share of the copy that stays in an update, counted from 0."""
        if not self.power:
            return self.decay
        rising = 1.0 - float((1.0 + update / self.inv_gamma) ** -self.power)
        return min(self.decay, max(self.min_decay, rising)) if update else 0.0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After the optimizer's step number `step`, counted from 0. Never waits for the device of the weights, unless
        the averages lie on another."""
        if self._depth:
            raise RuntimeError("the weights are swapped with their averages; leave `swapped()` before an update")
        weights = [weight.detach() for weight in self._weights.values()]
        averages = list(self._averages.values())
        if not weights:
            return
        update = step - self.update_after
        if update < 0:
            torch._foreach_copy_(averages, weights)
        else:
            self._approach(averages, weights, 1.0 - self.decay_at(update))
        if self.switch_every and (step + 1) % self.switch_every == 0:
            torch._foreach_copy_(weights, averages)

    def _approach(self, averages: list[Tensor], weights: list[Tensor], share: float) -> None:
        """Copies of weights that are elsewhere, or in another format, are made one at a time."""
        pairs = list(zip(averages, weights, strict=True))
        if all(weight.dtype == average.dtype and weight.device == average.device for average, weight in pairs):
            torch._foreach_lerp_(averages, weights, share)
            return
        for average, weight in pairs:
            average.lerp_(weight.to(average.device, average.dtype), share)

    @contextlib.contextmanager
    def written(self) -> Iterator[nn.Module]:
        """Within, the weights are the averages as they are, in float32 and wherever they lie: to be read and saved, for
        no pass. Nothing is copied."""
        if self._depth:
            raise RuntimeError("the weights are swapped with their averages; leave `swapped()` before")
        averages = {id(weight): self._averages[name] for name, weight in self._weights.items()}
        places = [
            (owner, key, weight)
            for owner in self.module.modules()
            for key, weight in owner.named_parameters(recurse=False, remove_duplicate=False)
            if id(weight) in averages
        ]
        # other parameters in their place: those that DDP and optimizers know must not change their format or device
        for owner, key, weight in places:
            setattr(owner, key, nn.Parameter(averages[id(weight)], requires_grad=False))
        try:
            yield self.module
        finally:
            for owner, key, weight in places:
                setattr(owner, key, weight)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[nn.Module]:
        """Within, the module has the averaged weights; no other copy is made. May be nested.

        Not for use between a forward pass and its backward pass.
        """
        self._depth += 1
        if self._depth == 1:
            self._swap()
        try:
            yield self.module
        finally:
            self._depth -= 1
            if not self._depth:
                self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._weights.items():
            average = self._averages[name]
            if weight.dtype == average.dtype and weight.device == average.device:
                weight.data, self._averages[name] = average, weight.data
            elif self._depth:
                self._aside[name] = weight.detach().to(average.device, copy=True)
                weight.copy_(average)
            else:
                weight.copy_(self._aside.pop(name))

    @torch.no_grad()
    def begin_with(self, values: Mapping[str, Tensor], source: str) -> None:
        """Let the average begin with other values than the module's. Raises Refusal, which names their source."""
        problem = next((name for name, average in self._averages.items() if _shape(values, name) != average.shape), "")
        if problem:
            raise Refusal(f"{source}: {problem} is missing or of another size; give a model of the same kind")
        for name, average in self._averages.items():
            average.copy_(values[name])

    @torch.no_grad()
    def weights(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """The module's state dict with the averages in place of the weights, on the CPU; what is not floating keeps
        its format. Each tensor is a copy."""
        taken = {name for name in self._weights if self._depth and name not in self._aside}  # by the module itself
        averages = {
            id(weight): weight if name in taken else self._averages[name] for name, weight in self._weights.items()
        }
        state = self.module.state_dict(keep_vars=True)  # two names may be one weight
        return {name: _exported(averages.get(id(tensor), tensor), dtype) for name, tensor in state.items()}

    def copy_module(self) -> nn.Module:
        """Another module with the averaged weights, frozen and in evaluation mode."""
        with self.swapped() as module:
            copied = copy.deepcopy(module)
        return copied.requires_grad_(False).eval()

    def state_dict(self) -> dict[str, Any]:
        """The averages on the CPU, in float32."""
        if self._depth:
            raise RuntimeError("the weights are swapped with their averages; leave `swapped()` before saving")
        return {name: average.detach().cpu().clone() for name, average in self._averages.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises Refusal when the averages are of other weights."""
        ours = {name: average.shape for name, average in self._averages.items()}
        if ours != {name: average.shape for name, average in state.items()}:
            raise Refusal(
                "the checkpoint's moving average has other weights than this network; begin anew with --restart"
            )
        for name, average in self._averages.items():
            average.copy_(state[name])


def _shape(values: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return values[name].shape if name in values else None


def _exported(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype, copy=True).contiguous()
