"""What test_processes.py runs alone and in two processes: small trainings whose pictures are shared out.

`python shared_run.py FOLDER` writes what each rank saw to `FOLDER/rank-0.json` and so on.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer import atomic
from lora_trainer.draws import torch_generator
from lora_trainer.engine import commands
from lora_trainer.engine.cadence import NEVER, Cadence
from lora_trainer.engine.checkpoints import CheckpointFolder
from lora_trainer.engine.commands import DEAF, Commands
from lora_trainer.engine.kept_files import Keep
from lora_trainer.engine.loop import Loop
from lora_trainer.engine.optimizers import Group, make_optimizer
from lora_trainer.engine.phase import Batch, DrawnPicture, Losses, Phase
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.resume import find_start
from lora_trainer.engine.run_folder import RunFolder
from lora_trainer.engine.run_settings import RunSettings
from lora_trainer.engine.signals import Stopped, StopRequest
from lora_trainer.engine.step import NonFiniteError
from lora_trainer.engine.trackers import NO_TRACKERS
from lora_trainer.engine.validation import NO_VALIDATION
from lora_trainer.errors import Refusal

SIZES = (6, 5, 1, 3)  # pictures of a step; 5 and 3 are uneven shares, 1 is fewer than the processes
PASSES = 2  # passes of a step over all processes, so that two processes have one each


@dataclass(frozen=True)
class Shares:
    """This rank's rows of each step. A pass without any gets a filler of weight 0."""

    rank: int
    world: int
    broken: int = -1

    def __call__(self, step: int) -> list[Batch]:
        total = SIZES[step % len(SIZES)]
        rows = torch.randn(total, 4, generator=torch_generator(3, step))
        if step == self.broken:
            rows[total - 1, 0] = float("nan")
        slots = PASSES * 2
        edges = [total * slot // slots for slot in range(slots + 1)]
        mine = range(self.rank * slots // self.world, (self.rank + 1) * slots // self.world)
        return [self._micro(step, rows, range(edges[slot], edges[slot + 1])) for slot in mine]

    def _micro(self, step: int, rows: torch.Tensor, share: range) -> Batch:
        if not share:
            return {"rows": torch.ones(1, 4), "names": ["filler"], "weights": torch.zeros(1), "total": len(rows)}
        names = [f"row {row} of {step}" for row in share]
        return {"rows": rows[list(share)], "names": names, "weights": torch.ones(len(share)), "total": len(rows)}


class Pair:
    """A generator and a judge with a step every second time; each loss calls the other network bare."""

    total_steps, steps_per_epoch, total_batch, largest_step, suffix = 9, 3, 6, 0, ".json"
    state: Mapping[str, Any] = {}

    def __init__(self, processes: Processes, broken: int = -1, after: Callable[[int], None] | None = None) -> None:
        self.data = Shares(processes.rank, processes.world, broken)
        self.after = after or (lambda step: None)
        with torch.random.fork_rng():
            torch.manual_seed(processes.rank)  # other weights in each process: the first one's must win
            self.painter, self.judge = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.phases: Sequence[Phase] = [
            self._phase("G", self.painter, "adamw", 1, self.painter_loss),
            self._phase("D", self.judge, "lion", 2, self.judge_loss),
        ]

    def _phase(self, name: str, module: nn.Module, optimizer: str, every: int, loss: Any) -> Phase:
        weights = dict(module.named_parameters())
        built = make_optimizer(optimizer, [Group(name, 0.01, weights)], {})
        return Phase(
            name, module, weights, built, loss, lambda step: 1.0, max_grad_norm=0.5, due=lambda step: step % every == 0
        )

    def painter_loss(self, module: nn.Module, batch: Batch) -> Losses:
        painted = module(batch["rows"])
        return Losses((painted - batch["rows"]).square().mean(1) - 0.1 * self.judge(painted)[:, 0])

    def judge_loss(self, module: nn.Module, batch: Batch) -> Losses:
        with torch.no_grad():
            painted = self.painter(batch["rows"])
        return Losses(nn.functional.softplus(module(painted) - module(batch["rows"]))[:, 0])

    def prepare(self, step: int, micros: list[Batch]) -> list[Batch]:
        return micros

    def after_step(self, step: int) -> None:
        self.after(step)

    def export(self, stem: Path, done: int) -> Path:
        path = stem.with_name(stem.name + self.suffix)
        if stem.name.startswith("full"):
            raise OSError(28, "No space left on device")
        atomic.write_text(path, json.dumps(self.numbers()))
        return path

    def preview(self, folder: Path, label: str, done: int) -> Sequence[DrawnPicture]:
        return ()

    def validate(self, folder: Path, label: str, done: int) -> Mapping[str, float]:
        return {}

    def numbers(self) -> list[float]:
        return [value for phase in self.phases for w in phase.weights.values() for value in w.flatten().tolist()]


def train(trainer: Pair, processes: Processes, out: Path, name: str, stop: StopRequest | None = None) -> str:
    """How the run ended, in a word and its message. The main process hears commands."""
    folder = RunFolder(out / name, name)
    commands.LOOK_EVERY_S = 0.0
    settings = RunSettings(
        folder=folder, fingerprint={}, save=NEVER, preview=NEVER, validation=NO_VALIDATION,
        checkpoint=Cadence(every_n_steps=4),
        checkpoint_minutes=0, log_every=1, workers=0, track=NO_TRACKERS, seed=1, continue_command="again",
        commands=Commands(folder.path) if processes.is_main else DEAF, keep=Keep(states=True),
    )  # fmt: skip
    found = processes.from_main(find_start(folder, {}, trainer.total_steps, False) if processes.is_main else None)
    try:
        Loop(trainer, settings, processes, Precision("no", "cpu"), stop or StopRequest()).run(found)
    except Stopped as stopped:
        return f"stopped {stopped.exit_status}"
    except (NonFiniteError, Refusal) as error:
        return str(error)
    return "finished"


def stopped_and_continued(processes: Processes, out: Path) -> dict[str, Any]:
    """Only the last rank hears the signal, after step 6 of 9."""
    stop = StopRequest()

    def hear(step: int) -> None:
        if step == 5 and processes.rank == processes.world - 1:
            stop.signal = 15

    ended = train(Pair(processes, after=hear), processes, out, "parted", stop)
    found = CheckpointFolder(out / "parted" / "checkpoints" / "parted").newest()
    processes.barrier()
    trainer = Pair(processes)
    again = train(trainer, processes, out, "parted")
    return {"ended": ended, "step": found and found.step, "again": again, "weights": trainer.numbers()}


def commanded(processes: Processes, out: Path) -> dict[str, Any]:
    """Files are made in the folder in steps 1 and 3 of epochs of three steps."""

    def make(step: int) -> None:
        if processes.is_main and step in (1, 3):
            (out / "commanded" / ("save.now" if step == 1 else "stop.epoch")).touch()

    ended = train(Pair(processes, after=make), processes, out, "commanded")
    processes.barrier()
    return {"ended": ended, "files": sorted(path.name for path in (out / "commanded").glob("commanded*"))}


def told(processes: Processes) -> dict[str, Any]:
    return {
        "any": [processes.any(processes.rank == 0), processes.any(processes.rank == processes.world - 1)],
        "none": processes.any(False),
        "each": processes.any_of([False, processes.rank == processes.world - 1, True]),
        "gathered": processes.gather([f"from {processes.rank}"] * (processes.rank + 1)),
        "main": processes.from_main({"rank": processes.rank}),
        "sum": float(processes.sum_(torch.tensor(processes.rank + 1.0))),
    }


class Flattened(nn.Conv2d):
    """As a matrix product, which gives the gradient of a 1 x 1 kernel other strides than the kernel has."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.movedim(1, 3), self.weight.flatten(1), self.bias).movedim(3, 1)


def wrapped(processes: Processes) -> list[str]:
    """What a wrapped module does with buffers and gradients, and what is warned of."""
    module = nn.Sequential(Flattened(2, 3, 1), nn.BatchNorm2d(3)).to(memory_format=torch.channels_last)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        module[1].register_buffer("mark", torch.zeros(()))
        shared: Any = processes.wrap(module)
        module[1].mark.fill_(processes.rank)
        shared(torch.randn(2, 2, 4, 4).to(memory_format=torch.channels_last) * (1 + processes.rank)).sum().backward()
    if processes.world == 1:
        return [str(each.message) for each in said]
    own = "own buffers" if float(module[1].mark) == processes.rank else "sent buffers"
    return [own, str(shared.gradient_as_bucket_view), *(str(each.message) for each in said)]


def main(out: Path) -> None:
    processes = Processes()
    whole = Pair(processes)
    seen = {
        "ended": train(whole, processes, out, "whole"),
        "weights": whole.numbers(),
        "parted": stopped_and_continued(processes, out),
        "commanded": commanded(processes, out),
        "nan": train(Pair(processes, broken=6), processes, out, "nan"),
        "full": train(Pair(processes), processes, out, "full"),
        "told": told(processes),
        "wrapped": wrapped(processes),
    }
    (out / f"rank-{processes.rank}.json").write_text(json.dumps(seen), encoding="utf-8")
    del whole
    processes.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
