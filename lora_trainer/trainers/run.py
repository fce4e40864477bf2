"""From a checked preset to a finished run: look, find the start, build, train, say where the results are."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lora_trainer.config.common import CommonPreset
from lora_trainer.config.reader import Loaded
from lora_trainer.engine.commands import forget_old_commands, listening
from lora_trainer.engine.console import set_up_logging
from lora_trainer.engine.hub import check_hub, open_uploads
from lora_trainer.engine.loop import Loop
from lora_trainer.engine.plan import dry_run
from lora_trainer.engine.precision import Precision, choose_precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.resume import NOTHING_RESUMED, AlreadyFinished, Resumed, find_start
from lora_trainer.engine.run_folder import RunFolder
from lora_trainer.engine.run_settings import RunSettings
from lora_trainer.engine.signals import Stopped, StopRequest
from lora_trainer.engine.step import NonFiniteError
from lora_trainer.engine.trackers import NO_TRACKERS, Trackers, check_trackers, log_folder, open_trackers
from lora_trainer.report.write import leave_report
from lora_trainer.trainers.doctor import leave_page
from lora_trainer.trainers.facts import leave_facts
from lora_trainer.trainers.job import Job, found_by_main
from lora_trainer.trainers.starts import STARTS, Start

log = logging.getLogger(__name__)

BOARDS = ("tensorboard", "all")  # the trackers whose folder TensorBoard shows

DISK_TROUBLE = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC)}
MAKE_ROOM = "Make room or give another output_dir; the same command goes on from the last checkpoint"
OUT_OF_MEMORY = (
    "the device is out of memory. %s; the same command then goes on from the last checkpoint if the pictures per step "
    "stay the same (%s)"
)


def run(stages: Sequence[Loaded], stop: StopRequest, *, dry: bool = False, restart: bool = False) -> int:
    """Train what the preset says, one stage after the other, or only plan it. The exit status is 0, or 1 when the
    training failed.

    Raises Refusal for what the person can mend, and Stopped after a signal.
    """
    processes = Processes()
    set_up_logging(processes.is_main)
    advice = STARTS[stages[0].preset.trainer].advice(stages[0].preset)
    try:
        for number, loaded in enumerate(stages, 1):
            if loaded.stage:
                log.info("stage %d of %d: %s", number, len(stages), loaded.stage)
            if dry and loaded.follows:
                log.info("it starts from the result of the stage before, and can be planned when that is there")
                break
            _run_stage(loaded, processes, stop, dry=dry, restart=restart)
    except NonFiniteError as error:
        log.error("%s", error)
        return 1
    except torch.OutOfMemoryError as error:
        log.error(OUT_OF_MEMORY, advice, str(error).split(". ")[0])
        return 1
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        log.error("%s: %s. %s", error.filename or "the disk", error.strerror, MAKE_ROOM)
        return 1
    finally:
        processes.close()
    return 0


def _run_stage(loaded: Loaded, processes: Processes, stop: StopRequest, *, dry: bool, restart: bool) -> None:
    try:
        _run(loaded, processes, stop, dry=dry, restart=restart)
    except AlreadyFinished as finished:
        log.info("%s", finished)


def _run(loaded: Loaded, processes: Processes, stop: StopRequest, *, dry: bool, restart: bool) -> None:
    start = STARTS[loaded.preset.trainer]
    folder = RunFolder(Path(loaded.preset.output_dir), loaded.preset.output_name)
    check_trackers(loaded.preset)
    _say(loaded)
    if dry:
        found_by_main(processes, lambda: leave_page(loaded))
    if start.settle:
        loaded = start.call("settle", loaded, processes, folder, restart)
    preset = loaded.preset
    job: Job = found_by_main(processes, lambda: _inspect(loaded, processes.world, folder, restart))
    precision, note = choose_precision(job.mixed_precision, processes.device)
    if note:
        log.info("note: %s", note)
    job.fingerprint["mixed_precision"] = precision.name
    if dry:
        trainer = _build(start, job, processes, precision, dry=True)
        dry_run(trainer, start.call("plan", trainer), _settings(loaded, job, folder, NO_TRACKERS), processes, precision)
        return
    found = found_by_main(processes, lambda: find_start(folder, job.fingerprint, job.total_steps, restart, job.resumed))
    found_by_main(processes, lambda: check_hub(job.hub))
    with (
        _reserved(folder, processes),
        open_trackers(preset, folder, processes, found.step if found else 0) as track,
    ):
        if processes.is_main:
            forget_old_commands(folder.path)
        trainer = _build(start, job, processes, precision, dry=False)
        settings = _settings(loaded, job, folder, track)
        with open_uploads(job.hub, processes.is_main) as uploads, listening(folder.path, processes.is_main) as commands:
            settings = replace(settings, uploads=uploads, commands=commands)
            stop.when_heard = commands.leave_terminal
            if processes.is_main:
                folder.claim()
                leave_facts(folder, loaded, job, settings.continue_command, processes.device)
            try:
                result = Loop(trainer, settings, processes, precision, stop).run(found)
            except (Exception, Stopped) as error:
                if not getattr(error, "message", ""):  # else a second Ctrl-C, which waits for nothing
                    _report(folder, processes)
                raise
    if processes.is_main:
        _say_where(result, folder, preset)
    _report(folder, processes)


@contextmanager
def _reserved(folder: RunFolder, processes: Processes) -> Iterator[None]:
    """While models are loaded there is no status yet that tells other programs to stay away."""
    is_new = found_by_main(processes, folder.reserve)
    try:
        yield
    finally:
        if processes.is_main:
            folder.release(is_new)


def _build(start: Start, job: Job, processes: Processes, precision: Precision, *, dry: bool) -> Any:
    trainer = start.call("build", job, processes, precision, dry)
    if start.fit:
        start.call("fit", trainer, processes, precision)
    return trainer


def _report(folder: RunFolder, processes: Processes) -> None:
    if processes.is_main:
        leave_report(folder.path)


def _inspect(loaded: Loaded, world: int, folder: RunFolder, restart: bool) -> Job:
    """What is known before a model is loaded; what the run goes on from is found first, as its seed may be needed."""
    preset, start = loaded.preset, STARTS[loaded.preset.trainer]
    resumed = start.call("resume", preset, folder, restart) if start.resume else NOTHING_RESUMED
    job: Job = start.call("inspect", loaded, world, _seed(preset, folder, restart, resumed))
    job.fingerprint.update(resumed.facts)
    return replace(job, resumed=resumed)


def _seed(preset: CommonPreset, folder: RunFolder, restart: bool, resumed: Resumed) -> int:
    """The preset's, or for 0 that of the state it goes on from, or the one that this run drew when it began."""
    if preset.seed or resumed.seed:
        return preset.seed or resumed.seed
    known = None if restart else (folder.status() or {}).get("seed")
    return int(known) if known else secrets.randbelow(2**31 - 1) + 1


def _settings(loaded: Loaded, job: Job, folder: RunFolder, track: Trackers) -> RunSettings:
    preset = loaded.preset
    return RunSettings(
        folder=folder,
        fingerprint=job.fingerprint,
        epoch_ends=job.epoch_ends,
        save=job.saves,
        save_minutes=job.save_minutes,
        names=job.names,
        keep=job.keep,
        preview=job.previews,
        preview_first=job.previews_first,
        validation=job.validation,
        checkpoint=job.checkpoints,
        checkpoint_minutes=preset.checkpoint_every_n_minutes,
        log_every=preset.log_every,
        workers=job.workers,
        track=track,
        seed=job.seed,
        continue_command=_command(),
        resumed=job.resumed.text,
    )


def _command() -> str:
    """What the person typed, as far as it can be told: the arguments, without secrets and without --restart."""
    words = []
    for word in sys.argv[1:]:
        if word == "--restart":
            continue
        name = word.split("=")[0]
        secret = "=" in word and ("key" in name or "token" in name)
        words.append(f"{name}=..." if secret else f'"{word}"' if " " in word else word)
    return " ".join([_launcher(), *words])


def _launcher() -> str:
    """By what this process was started, as launchers tell it to their children."""
    if "ACCELERATE_MIXED_PRECISION" in os.environ:
        return "accelerate launch -m lora_trainer"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return f"torchrun --nproc_per_node {os.environ.get('LOCAL_WORLD_SIZE', '1')} -m lora_trainer"
    return "python -m lora_trainer"


def _say(loaded: Loaded) -> None:
    for note in loaded.notes:
        log.info("note: %s", note)
    for key, reason in loaded.inert.items():
        log.info("without effect: %s: %s", key, reason)


def _say_where(result: Path | None, folder: RunFolder, preset: CommonPreset) -> None:
    log.info("finished: %s", result)
    if folder.samples.is_dir():
        log.info("previews: %s", folder.samples)
    seen = f"; TensorBoard: tensorboard --logdir {log_folder(preset, folder)}" if preset.log_with in BOARDS else ""
    log.info("losses: %s%s", folder.metrics_file, seen)
