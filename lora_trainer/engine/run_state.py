"""All that must survive a stop, listed in one place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lora_trainer.engine.adopted_optimizer import adopt_state, made_of
from lora_trainer.engine.checkpoints import Found
from lora_trainer.engine.metrics import Window
from lora_trainer.engine.optimizers import load_optimizer_state
from lora_trainer.engine.phase import Phase, Trainer, leading
from lora_trainer.engine.step import Stepper
from lora_trainer.engine.validation import BestValues
from lora_trainer.errors import Refusal

log = logging.getLogger(__name__)


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

    def restore(self, found: Found) -> int:
        """Give the number of steps done. Raises Refusal, which names the folder, when the weights are others.

        Of a state that was made differently, what does not fit is left as it is in a new run, and the log says so.
        """
        state = found.load()
        for phase in self.trainer.phases:
            if phase.name not in state["phases"]:
                raise Refusal(f"{found.folder}: the state is of another trainer: it has no {phase.name}; give another")
            self._restore_phase(phase, state["phases"][phase.name], found)
        if self.stepper.scaler is not None and state["scaler"] is not None:
            self.stepper.scaler.load_state_dict(state["scaler"])
        self.window.load_state_dict(state["window"])
        self.best.load_state_dict(state["best"])
        for name, part in self.trainer.state.items():
            if name in state["trainer"]:
                part.load_state_dict(state["trainer"][name])
            elif found.changes:
                log.info("%s: has no %s, which begins anew", found.folder, name)
            else:
                raise Refusal(f"{found.folder}: the checkpoint has no {name}; begin anew with --restart")
        return int(state["step"])

    def _phase(self, phase: Phase) -> dict[str, Any]:
        """Of phases that share an optimizer the first one has everything, the others count their own steps."""
        if phase not in leading(self.trainer.phases):
            return {"applied": self.stepper.applied[phase.name]}
        return {
            "weights": {name: weight.detach().to("cpu", copy=True) for name, weight in phase.weights.items()},
            "buffers": {
                name: buffer.detach().to("cpu", copy=True) for name, buffer in kept_buffers(phase.module).items()
            },
            "optimizer": phase.optimizer.state_dict(),
            "made": made_of(phase.optimizer),
            "applied": self.stepper.applied[phase.name],
        }

    def _restore_phase(self, phase: Phase, saved: Mapping[str, Any], found: Found) -> None:
        self.stepper.applied[phase.name] = int(saved["applied"])
        if phase not in leading(self.trainer.phases):
            return
        _check_weights(phase, saved["weights"], found)
        with torch.no_grad():
            for name, weight in phase.weights.items():
                weight.copy_(saved["weights"][name])
            for name, buffer in kept_buffers(phase.module).items():
                if name in saved["buffers"] or not found.changes:
                    buffer.copy_(saved["buffers"][name])
        if not found.changes:
            load_optimizer_state(phase.optimizer, saved["optimizer"])
        elif reason := adopt_state(phase.optimizer, saved["optimizer"], saved.get("made", {})):
            log.info("%s: the optimizer of %s begins anew: %s", found.folder, phase.name, reason)


def _check_weights(phase: Phase, saved: Mapping[str, torch.Tensor], found: Found) -> None:
    """Refusal for others. An optimizer's state is kept by position, so the names must agree in their order too."""
    here = [(name, tuple(weight.shape)) for name, weight in phase.weights.items()]
    there = [(name, tuple(weight.shape)) for name, weight in saved.items()]
    if here == there:
        return
    if not found.kept:
        raise Refusal(
            f"{found.folder}: the checkpoint holds other weights than this model trains; begin anew with --restart"
        )
    odd = next((pair for pair in zip(there, here, strict=False) if pair[0] != pair[1]), None)
    first = f"{odd[0][0]} {odd[0][1]} where it trains {odd[1][0]} {odd[1][1]}" if odd else "more or fewer"
    changed = f" ({'; '.join(found.changes)})" if found.changes else ""
    raise Refusal(
        f"{found.folder}: the state holds other weights than this model trains, {first}{changed}. Put the keys of the "
        "network back, or leave resume empty"
    )


def kept_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """What a module remembers beside its weights, such as the vectors of spectral norm."""
    kept = module.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in module.named_buffers() if name in kept}
