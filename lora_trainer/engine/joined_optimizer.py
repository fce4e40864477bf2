"""Several optimizers that step as one, for a module whose parts are trained by different ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


class JoinedOptimizer(torch.optim.Optimizer):
    """Steps all of its parts after one backward pass; groups and states are those of the parts, in their order."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)
        self.grad_scale: Any = None
        self.found_inf: Any = None

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[torch.Tensor, Any]:  # type: ignore[override]
        return {weight: state for part in self.parts for weight, state in part.state.items()}

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The parts' options, each with its optimizer's name."""
        return {
            f"{number} {type(part).__name__} {key}": value
            for number, part in enumerate(self.parts)
            for key, value in part.defaults.items()
        }

    @property
    def _step_supports_amp_scaling(self) -> bool:
        return all(getattr(part, "_step_supports_amp_scaling", False) for part in self.parts)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        skips = self._step_supports_amp_scaling
        for part in self.parts:
            if skips:
                part.grad_scale, part.found_inf = self.grad_scale, self.found_inf  # type: ignore[attr-defined]
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        for part, saved in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(saved)

    def __getattr__(self, name: str) -> Any:
        """`train` and `eval`, where a part has them: schedule-free optimizers."""
        if name not in ("train", "eval") or not any(hasattr(part, name) for part in self.parts):
            raise AttributeError(name)
        changes = [getattr(part, name) for part in self.parts if hasattr(part, name)]

        def change() -> None:
            for each in changes:
                each()

        return change


def single_optimizers(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """Those that step together; a plain optimizer alone."""
    if not isinstance(optimizer, JoinedOptimizer):
        return [optimizer]
    return [single for part in optimizer.parts for single in single_optimizers(part)]
