"""All that must survive a stop, listed in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_trainer.engine.metrics import Window
from lora_trainer.engine.optimizers import load_optimizer_state
from lora_trainer.engine.phase import Phase, Trainer
from lora_trainer.engine.step import Stepper
from lora_trainer.engine.validation import BestValues
from lora_trainer.errors import Refusal


@dataclass(frozen=True)
class RunState:
    """The parts of a run whose numbers a continuation needs to be the same run."""

    trainer: Trainer
    stepper: Stepper
    window: Window
    best: BestValues

    def collect(self, done: int) -> dict[str, Any]:
        """Everything on the CPU, after `done` steps; `restore` is its mirror."""
        scaler = self.stepper.scaler
        return {
            "step": done,
            "phases": {phase.name: self._phase(phase) for phase in self.trainer.phases},
            "scaler": scaler.state_dict() if scaler is not None else None,
            "window": self.window.state_dict(),
            "best": self.best.state_dict(),
            "trainer": {name: part.state_dict() for name, part in self.trainer.state.items()},
        }

    def restore(self, state: Mapping[str, Any], folder: Path) -> int:
        """Give the number of steps done. Raises Refusal, which names the folder, when the weights are others."""
        for phase in self.trainer.phases:
            self._restore_phase(phase, state["phases"][phase.name], folder)
        if self.stepper.scaler is not None and state["scaler"] is not None:
            self.stepper.scaler.load_state_dict(state["scaler"])
        self.window.load_state_dict(state["window"])
        self.best.load_state_dict(state["best"])
        for name, part in self.trainer.state.items():
            part.load_state_dict(state["trainer"][name])
        return int(state["step"])

    def _phase(self, phase: Phase) -> dict[str, Any]:
        return {
            "weights": {name: weight.detach().cpu().clone() for name, weight in phase.weights.items()},
            "buffers": {name: buffer.detach().cpu().clone() for name, buffer in kept_buffers(phase.module).items()},
            "optimizer": phase.optimizer.state_dict(),
            "applied": self.stepper.applied[phase.name],
        }

    def _restore_phase(self, phase: Phase, saved: Mapping[str, Any], folder: Path) -> None:
        shapes = {name: tuple(weight.shape) for name, weight in phase.weights.items()}
        # an optimizer's state is kept by position, so the names must agree in their order too
        if list(shapes.items()) != [(name, tuple(weight.shape)) for name, weight in saved["weights"].items()]:
            raise Refusal(
                f"{folder}: the checkpoint holds other weights than this model trains; begin anew with --restart"
            )
        with torch.no_grad():
            for name, weight in phase.weights.items():
                weight.copy_(saved["weights"][name])
            for name, buffer in kept_buffers(phase.module).items():
                buffer.copy_(saved["buffers"][name])
        load_optimizer_state(phase.optimizer, saved["optimizer"])
        self.stepper.applied[phase.name] = int(saved["applied"])


def kept_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """What a module remembers beside its weights, such as the vectors of spectral norm."""
    kept = module.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in module.named_buffers() if name in kept}
