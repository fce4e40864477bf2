"""What a dry run prints: the plan, the files, the rate over time, memory, and one step of the largest batch."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from rich.table import Table

from lora_trainer.engine.cadence import Length
from lora_trainer.engine.console import console, spoken_time
from lora_trainer.engine.kept_files import Keep
from lora_trainer.engine.metrics import memory_gib
from lora_trainer.engine.phase import Trainer, leading
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.run_settings import RunSettings
from lora_trainer.engine.step import NonFiniteError, Stepper

SHOWN_RATES = 5
BLOCKS = " ▁▂▃▄▅▆▇█"

Rows = Sequence[tuple[str, str]]


def dry_run(trainer: Trainer, rows: Rows, settings: RunSettings, processes: Processes, precision: Precision) -> None:
    """Print the plan and run one step of the largest batch. Nothing is written."""
    length = Length(trainer.total_steps, trainer.steps_per_epoch, settings.epoch_ends)
    files = _files(settings, length, trainer.suffix)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    table.add_row("steps", f"{length.steps_per_epoch} an epoch, {length.total_steps} in all, {length.epochs} epochs")
    shared = f" over {processes.world} processes" if processes.world > 1 else ""
    table.add_row("images a step", f"{trainer.total_batch}{shared}")
    for phase in leading(trainer.phases):
        for group in {group["name"]: group for group in phase.optimizer.param_groups}.values():
            factors = [phase.factor(group["name"], step) for step in range(length.total_steps)]
            if group["lr"] is not None:
                table.add_row(f"rate of {group['name']}", _rate_line(group["base_lr"], factors))
    shown = files if len(files) <= 6 else [*files[:3], f"... {len(files) - 5} more ...", *files[-2:]]
    table.add_row("files", "\n".join(f"{settings.folder.path / name}" for name in shown))
    for name, value in kept_rows(settings.keep):
        table.add_row(name, value)
    if processes.is_main:
        console.print(table)
    seconds = _largest_step(trainer, processes, precision)
    if processes.is_main:
        memory = memory_gib(processes.device)
        console.print(
            f"one step of the largest batch: {seconds:.2f} s, {memory:.2f} GiB; "
            f"at this pace the whole run takes at most {spoken_time(seconds * length.total_steps)}"
        )


def _largest_step(trainer: Trainer, processes: Processes, precision: Precision) -> float:
    """Seconds of a step; the second of two, because the first one warms up."""
    stepper = Stepper(trainer.phases, processes, precision)
    step = trainer.largest_step
    micros = [{key: moved(value, processes.device) for key, value in micro.items()} for micro in trainer.data(step)]
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        result = stepper.run(step, trainer.prepare(step, [dict(micro) for micro in micros]))
        if bool(result.values["bad"]):
            raise NonFiniteError(
                f"a trial step gives loss {float(result.values['loss'])} and gradient norm "
                f"{float(result.values['grad_norm'])}; pictures: {', '.join(result.suspects())}"
            )
        if processes.device.type == "cuda":
            torch.cuda.synchronize(processes.device)
        seconds = time.perf_counter() - began
    return seconds


def moved(value: object, device: torch.device) -> object:
    if isinstance(value, tuple):
        return tuple(moved(part, device) for part in value)
    return value.to(device) if torch.is_tensor(value) else value


def _rate_line(base: float, factors: Sequence[float]) -> str:
    """The rate at a few moments and its course as a row of blocks."""
    places = sorted({round(i * (len(factors) - 1) / (SHOWN_RATES - 1)) for i in range(SHOWN_RATES)})
    course = [factors[round(i * (len(factors) - 1) / 23)] for i in range(24)]
    blocks = "".join(BLOCKS[round(max(0.0, min(1.0, factor)) * (len(BLOCKS) - 1))] for factor in course)
    return f"{blocks}  " + ", ".join(f"step {place}: {base * factors[place]:.2e}" for place in places)


def kept_rows(keep: Keep) -> Rows:
    """What stays of the files, and which states there are."""
    counts = {
        "files": {"epochs": keep.epoch_files, "steps": keep.step_files},
        "states": {"epochs": keep.epoch_states, "steps": keep.step_states} if keep.states else {},
    }
    stays = [
        f"the last {count} {what} saved by {by}" for what, of in counts.items() for by, count in of.items() if count
    ]
    places = [*(["beside every file"] if keep.states else []), *(["at the end"] if keep.keeps_last_state else [])]
    rows = [("states", " and ".join(places))] if places else []
    return [*rows, *([("of these stay", ", ".join(stays))] if stays else [])]


def _files(settings: RunSettings, length: Length, suffix: str) -> list[str]:
    """Every exported file in the order of writing."""
    name, names = settings.folder.name, settings.names
    found = []
    for done in range(1, length.total_steps):
        epoch = length.epoch(done)
        if settings.save.due_epoch(done, length):
            found.append(names.after_epoch(name, epoch, done))
        if settings.save.due_step(done, length):
            found.append(names.after_step(name, epoch, done))
    found.append(names.at_end(name, length.epochs, length.total_steps))
    return [names.file(each, suffix) for each in dict.fromkeys(found)]
