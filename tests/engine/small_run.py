"""A small training that the tests of the loop run: a linear layer, four rows a step, twelve steps in three epochs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_trainer import atomic
from lora_trainer.draws import torch_generator
from lora_trainer.engine.cadence import NEVER, Cadence
from lora_trainer.engine.loop import Loop
from lora_trainer.engine.optimizers import Group, make_optimizer
from lora_trainer.engine.phase import Batch, Losses, Phase, Stateful
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.resume import NOTHING_RESUMED, Resumed, find_start
from lora_trainer.engine.run_folder import RunFolder
from lora_trainer.engine.run_settings import RunSettings
from lora_trainer.engine.schedules import Curve, make_schedule
from lora_trainer.engine.signals import StopRequest
from lora_trainer.engine.trackers import NO_TRACKERS
from lora_trainer.engine.validation import NO_VALIDATION


@dataclass(frozen=True)
class Numbers:
    """Four rows a step; the step `broken` has a NaN in its third row."""

    broken: int = -1

    def __call__(self, step: int) -> list[Batch]:
        inputs = torch.randn(4, 6, generator=torch_generator(5, step, "inputs"))
        if step == self.broken:
            inputs[2, 0] = float("nan")
        names = [f"row {row} of {step}" for row in range(4)]
        return [{"inputs": inputs, "names": names, "weights": torch.ones(4), "total": 4}]


class Counter:
    """A trainer's own number that must survive."""

    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


@dataclass
class Small:
    layer: nn.Linear
    phases: Sequence[Phase]
    data: Numbers
    total_steps: int = 12
    steps_per_epoch: int = 4
    total_batch: int = 4
    largest_step: int = 0
    suffix: str = ".bin"
    counter: Counter = field(default_factory=Counter)
    previews: list[str] = field(default_factory=list)
    after: Callable[[int], None] = lambda step: None
    measured: Sequence[float] = ()  # what the validations find, one after the other

    @property
    def state(self) -> dict[str, Stateful]:
        return {"counter": self.counter}

    def prepare(self, step: int, micros: list[Batch]) -> list[Batch]:
        return micros

    def validate(self, folder: Path, label: str, done: int) -> dict[str, float]:
        return {"psnr": self.measured[done // 3 - 1], "lpips": -self.measured[done // 3 - 1]}

    def after_step(self, step: int) -> None:
        self.counter.value += step
        self.after(step)

    def export(self, stem: Path, done: int) -> Path:
        path = stem.with_name(stem.name + self.suffix)
        numbers = [*self.layer.weight.flatten().tolist(), self.counter.value]
        atomic.write_text(path, json.dumps(numbers))
        return path

    def preview(self, folder: Path, label: str, done: int) -> Iterable[Path]:
        self.previews.append(label)
        return ()


def loss(module: nn.Module, batch: Batch) -> Losses:
    return Losses((module(batch["inputs"]) - batch["inputs"][:, :2]).square().mean(1))


def small(broken: int = -1, optimizer: str = "adamw", **facts: Any) -> Small:
    layer = nn.Linear(6, 2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    weights = dict(layer.named_parameters())
    total = facts.get("total_steps", 12)
    schedule = make_schedule("constant", Curve(total))
    built = make_optimizer(optimizer, [Group("layer", 0.05, weights)], {})
    return Small(layer, [Phase("only", layer, weights, built, loss, schedule, 1.0)], Numbers(broken), **facts)


def settings(out: Path, **changes: Any) -> RunSettings:
    facts: dict[str, Any] = {
        "folder": RunFolder(out, "run"),
        "fingerprint": {"unet_lr": 0.05},
        "save": NEVER,
        "preview": NEVER,
        "validation": NO_VALIDATION,
        "checkpoint": Cadence(every_n_steps=3),
        "checkpoint_minutes": 0,
        "log_every": 2,
        "workers": 0,
        "track": NO_TRACKERS,
        "seed": 5,
        "continue_command": "accelerate launch -m lora_trainer --preset mine.json",
        **changes,
    }
    return RunSettings(**facts)


def run(
    trainer: Small, out: Path, stop: StopRequest | None = None, resumed: Resumed = NOTHING_RESUMED, **changes: Any
) -> Path | None:
    chosen = settings(out, resumed=resumed.text, **changes)
    found = find_start(chosen.folder, chosen.fingerprint, trainer.total_steps, False, resumed)
    return Loop(trainer, chosen, Processes(), Precision("no", "cpu"), stop or StopRequest()).run(found)


def status(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "status.json").read_text(encoding="utf-8"))
    return found


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
