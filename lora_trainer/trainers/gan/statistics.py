"""What a GAN's status line and `stats.jsonl` tell of a tick: means over its images, kept on the device meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Tally:
    """Count, mean and deviation of named numbers, over all processes; nothing waits for the device until `take`."""

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = tuple(names)
        self._totals = torch.zeros(len(self.names), 3, dtype=torch.float64)  # of finished steps: count, sum, squares
        self._step = torch.zeros(len(self.names), 3, device=device)
        self._earlier: list[Tensor] = []  # finished steps that are still on the device

    @torch.no_grad()
    def add(self, name: str, values: Tensor) -> None:
        """Values of a pass, of any shape."""
        values = values.detach().float()
        count = torch.full_like(values.sum(), values.numel())
        self._step[self.names.index(name)] += torch.stack([count, values.sum(), values.square().sum()])

    def settle(self, sum_over_processes: Callable[[Tensor], Tensor]) -> Mapping[str, Tensor]:
        """End a step: its count, sum and sum of squares by name, of all processes, on the device."""
        whole = sum_over_processes(self._step)
        self._step = torch.zeros_like(whole)
        self._earlier.append(whole)
        return dict(zip(self.names, whole.unbind(), strict=True))

    def take(self) -> dict[str, dict[str, float]]:
        """num, mean and std of every name that was heard of since the last time; waits for the device."""
        self._fetch()
        found = {}
        for name, (count, total, squares) in zip(self.names, self._totals.tolist(), strict=True):
            if count:
                mean = total / count
                found[name] = {"num": count, "mean": mean, "std": math.sqrt(max(squares / count - mean**2, 0.0))}
        self._totals.zero_()
        return found

    def _fetch(self) -> None:
        if self._earlier:
            self._totals += torch.stack(self._earlier).cpu().double().sum(0)
            self._earlier = []

    def state_dict(self) -> dict[str, Any]:
        self._fetch()
        return {"names": list(self.names), "totals": self._totals.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of numbers that are not counted any more nothing is taken."""
        self._totals.zero_()
        for name, row in zip(state["names"], state["totals"], strict=True):
            if name in self.names:
                self._totals[self.names.index(name)] = row
