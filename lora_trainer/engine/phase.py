"""What a trainer hands to the loop: phases, the work around a step, and the files it writes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from lora_trainer.engine.optimizers import is_trained, set_mode
from lora_trainer.engine.schedules import Schedule

Batch = dict[str, Any]  # tensors with the samples first, "names" (b strings) and "weights" (b,): 0 for a filler


def always(step: int) -> bool:
    return True


def nothing(micros: Sequence[Batch]) -> None:
    """What most phases do before their passes."""


@dataclass(frozen=True)
class Losses:
    """What a phase's loss returns: one value a sample, so that the engine can average over unequal micro-batches.

    The terms are for the log alone, and so are the parts: a part is a mean over its members alone, of which a step may
    have none. Names of all phases but the first get the phase's before them, unless there is a slash in them.
    """

    per_sample: torch.Tensor  # (b,)
    terms: Mapping[str, torch.Tensor] = field(default_factory=dict)  # each (b,)
    parts: Mapping[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)  # (b,) and (b,) of 0 and 1


@dataclass(frozen=True)
class Phase:
    """One optimizer's share of a step.

    The loss gets the phase's own module as the first argument (under DDP when there are several processes) and must
    reach every weight of it; other networks are called bare. It may leave what later phases need in the batch. `due`
    says in which steps the phase takes part, and must not depend on anything that a resumed run does not know.
    `leaves_weights_out` is for modules of which a pass may not reach every weight: DDP then looks for them, which costs
    time. `begin` gets all passes of a step before the first one, for what concerns the whole batch. Several phases may
    have the same module, weights and optimizer and be due in different steps, but not in fp16, whose scaler lets an
    optimizer step once.

    `fused` steps each weight within the backward pass, so that one gradient is in memory at a time. A `rounding_seed`
    takes the steps of bf16 weights in float32 and rounds them by chance. Both want an optimizer of
    `fused_step.optimizer_per_weight` (`rounding_seed` alone works with any, at the cost of a float32 copy of all
    weights and gradients); the stepper refuses what does not go with them.
    """

    name: str
    module: nn.Module
    weights: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    loss: Callable[[nn.Module, Batch], Losses]
    schedule: Schedule
    max_grad_norm: float = 0.0  # 0: no clipping
    due: Callable[[int], bool] = always
    leaves_weights_out: bool = False
    schedules: Mapping[str, Schedule] = field(default_factory=dict)  # of groups that have their own, by name
    fused: bool = False
    rounding_seed: int | None = None
    begin: Callable[[Sequence[Batch]], None] = nothing

    def factor(self, group: str, step: int) -> float:
        """What the rate of an optimizer's group is multiplied with in this optimizer step."""
        return self.schedules.get(group, self.schedule)(step)

    @contextlib.contextmanager
    def collecting_gradients(self, step: int) -> Iterator[None]:
        """Within, the weights that are trained in this optimizer step require gradients; outside, they are frozen for
        the other phases."""
        for group in self.optimizer.param_groups:
            for weight in group["params"]:
                weight.requires_grad_(is_trained(group, step))
        try:
            yield
        finally:
            for weight in self.weights.values():
                weight.requires_grad_(False)


def leading(phases: Sequence[Phase]) -> list[Phase]:
    """The first phase of each optimizer."""
    return [
        phase for place, phase in enumerate(phases) if all(p.optimizer is not phase.optimizer for p in phases[:place])
    ]


@dataclass(frozen=True)
class DrawnPicture:
    """A file that a trainer drew. Its name, under which the trackers show it, is the same over time."""

    name: str
    path: Path
    caption: str = ""


@contextlib.contextmanager
def settled(phases: Sequence[Phase]) -> Iterator[None]:
    """Within, the weights are those that a file should have. Afterwards they are again what they were, to the bit."""
    moved = [phase for phase in leading(phases) if callable(getattr(phase.optimizer, "eval", None))]
    kept = [[weight.detach().clone() for weight in phase.weights.values()] for phase in moved]
    for phase in moved:
        set_mode(phase.optimizer, training=False)
    try:
        yield
    finally:
        for phase, before in zip(moved, kept, strict=True):
            set_mode(phase.optimizer, training=True)
            with torch.no_grad():
                for weight, value in zip(phase.weights.values(), before, strict=True):
                    weight.copy_(value)


class Stateful(Protocol):
    """Anything whose few numbers must survive a stop."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class Data(Protocol):
    """The micro-batches of a step, as a pure function of it; pickled into the loader's processes."""

    def __call__(self, step: int) -> list[Batch]: ...


class Trainer(Protocol):
    """One kind of training, ready to run. `step` counts from 0; `done` is the number of finished steps."""

    total_steps: int
    suffix: str  # of an exported file
    phases: Sequence[Phase]
    state: Mapping[str, Stateful]

    @property
    def data(self) -> Data: ...

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def total_batch(self) -> int:
        """Pictures of a step over all processes and passes."""
        ...

    @property
    def largest_step(self) -> int:
        """A step whose batch needs the most memory."""
        ...

    def prepare(self, step: int, micros: list[Batch]) -> list[Batch]:
        """What is made of the step's batches on the device, once, before the phases see them."""
        ...

    def after_step(self, step: int) -> Mapping[str, float] | None:
        """What follows a step; gives numbers that are to be recorded besides, if there are any: in all processes, or in
        none, since the step's losses are read first."""
        ...

    def export(self, stem: Path, done: int) -> Path:
        """Write the result as `stem` with the format's ending, atomically; called in the main process."""
        ...

    def preview(self, folder: Path, label: str, done: int) -> Sequence[DrawnPicture]:
        """Draw the samples into the folder, or give what validation left there; called in the main process."""
        ...

    def validate(self, folder: Path, label: str, done: int) -> Mapping[str, float]:
        """Measure what is held out, and leave pictures of it in the folder; called in the main process."""
        ...
