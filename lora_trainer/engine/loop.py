"""The one training loop: resume, steps, logging, previews, saving, and a clean end."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lora_trainer.engine.cadence import Length, Timer
from lora_trainer.engine.checkpoints import CheckpointFolder, Found
from lora_trainer.engine.commands import COMMANDS, DEAF, SAMPLE, SAVE, STOP, STOP_AFTER_EPOCH, Command
from lora_trainer.engine.console import RunDisplay, run_display
from lora_trainer.engine.exports import SAVE_ERRORS, Exports
from lora_trainer.engine.kept_files import STATE_ENDING, keep_state, surplus
from lora_trainer.engine.metrics import Reading, Readings, Speed, Window, memory_gib
from lora_trainer.engine.optimizers import rates
from lora_trainer.engine.phase import Trainer, settled
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.prefetch import prefetch
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.resume import machine_facts, note_other_machine
from lora_trainer.engine.run_settings import RunSettings
from lora_trainer.engine.run_state import RunState
from lora_trainer.engine.signals import Stopped, StopRequest
from lora_trainer.engine.step import NonFiniteError, Stepper
from lora_trainer.engine.validation import BestValues

log = logging.getLogger(__name__)

ASK_EVERY = 10  # steps between asking all GPU processes whether one was told to stop: the answer costs a wait


class Loop:
    """A run of a trainer from its first or its last saved step to its end."""

    def __init__(
        self, trainer: Trainer, settings: RunSettings, processes: Processes, precision: Precision, stop: StopRequest
    ) -> None:
        self.trainer = trainer
        self.settings = settings
        self.processes = processes
        self.stop = stop
        self.length = Length(trainer.total_steps, trainer.steps_per_epoch, settings.epoch_ends)
        self.stepper = Stepper(trainer.phases, processes, precision)
        self.checkpoints = CheckpointFolder(settings.folder.checkpoints)
        self.exports = Exports(trainer, settings.folder, self.checkpoints, processes, settings.uploads)
        self.readings = Readings(processes.device)
        self.window = Window()
        self.best = BestValues(settings.validation.higher_is_better)
        self.state = RunState(trainer, self.stepper, self.window, self.best)
        self.speed = Speed()
        self.timer = Timer(settings.checkpoint_minutes)
        self.export_timer = Timer(settings.save_minutes)
        self.done = 0  # steps that are whole
        self._running = ""  # the part of the running line that changes with each log line
        self._last_epoch = False  # whether the run is to stop when this epoch ends
        self._patient = True  # whether validation still gives hope
        self._in_step = False

    def run(self, found: Found | None) -> Path | None:
        """Train to the end and give the exported file (in the main process). Stopped and NonFiniteError pass on."""
        start = self.done = self._begin(found)
        self.stop.in_loop = True
        batches = prefetch(
            self.trainer.data, start, self.length.total_steps, self.processes.device, self.settings.workers
        )
        try:
            with run_display(self.length.total_steps, start, self.processes.is_main) as display:
                if start == 0 and self.settings.preview_first:
                    self._preview(0)
                if start == 0 and self.settings.validation.first:
                    self._validate(0)
                self.speed = Speed()
                for step, micros in enumerate(batches, start):
                    self._step(step, micros, display)
                    if not self._patient:
                        break
                self._read(display, leave=0)
            return self._finish(self.done)
        except NonFiniteError as error:
            self._rescue(start, error)
            self._status("failed", message=str(error))
            raise
        except BaseException as error:
            if not isinstance(error, Stopped):
                self._rescue(start, error)
                self._status("failed", message=f"{type(error).__name__}: {error}")
            raise
        finally:
            batches.close()  # type: ignore[attr-defined]
            self.stop.in_loop = False

    # -- one step ---------------------------------------------------------------------------------------------------

    def _step(self, step: int, micros: list[dict[str, Any]], display: RunDisplay) -> None:
        self._in_step = True
        result = self.stepper.run(step, self.trainer.prepare(step, micros))
        told = self.trainer.after_step(step)
        self._in_step = False
        self.done = done = step + 1
        self.readings.push(done, result, self._rates() if self._logged(done) else None)
        self._read(display, leave=0 if told else 1)  # rows in the order of steps: wandb drops what comes late
        if told and self.processes.is_main:
            self.settings.folder.append_metrics({"step": done, **told})
            self.settings.track.log(told, done)
        asked = self._asked(done)
        self._events(done, display, asked)
        self._last_epoch = self._last_epoch or STOP_AFTER_EPOCH in asked
        if done < self.length.total_steps and self._patient:
            self._stop_if_told(done, display, now=STOP in asked)

    def _read(self, display: RunDisplay, leave: int) -> None:
        """Take in the numbers of finished steps; the last `leave` are still under way."""
        for reading in self.readings.pop(leave):
            if not reading.finite:
                self._refuse_nonfinite(reading)
            self.window.add(reading)
            self.speed.add(reading.pictures)
            if reading.rates is not None:
                self._log(reading, reading.rates)
            loss = "" if self.window.smoothed is None else f"  loss {self.window.smoothed:.4f}"
            text = f"epoch {self.length.epoch(reading.step)}/{self.length.epochs}{loss}"
            display.step(reading.step, f"{text}  {self._running}")

    def _logged(self, done: int) -> bool:
        return done % self.settings.log_every == 0 or done == self.length.total_steps

    def _rates(self) -> dict[str, float]:
        return {f"lr/{name}": value for phase in self.trainer.phases for name, value in rates(phase.optimizer).items()}

    def _log(self, reading: Reading, rate: Mapping[str, float]) -> None:
        done = reading.step
        means = self.window.take()
        speed, memory = self.speed.take(reading.at), memory_gib(self.processes.device)
        row = {"step": done, "epoch": self.length.epoch(done), **means, **rate}
        row |= {"images_per_second": speed, "memory_gib": memory}
        shown = "/".join(f"{value:.1e}" for value in dict.fromkeys(rate.values()))
        self._running = f"lr {shown}  {speed:.2f} images/s  {memory:.1f} GiB"
        if self.processes.is_main:
            self.settings.folder.append_metrics(row)
            self.settings.track.log({name: value for name, value in row.items() if name != "step"}, done)

    # -- what happens between steps ---------------------------------------------------------------------------------

    def _events(self, done: int, display: RunDisplay, asked: Collection[Command | None]) -> None:
        """What is due after a step, or asked for by a person."""
        save, preview, checkpoint = self.settings.save, self.settings.preview, self.settings.checkpoint
        epoch_ends = self.length.ends_epoch(done)
        by_epoch, by_step = save.due_epoch(done, self.length), save.due_step(done, self.length)
        wanted = checkpoint.due_epoch(done, self.length) or checkpoint.due_step(done, self.length)
        wanted = wanted or None in asked or SAVE in asked
        drawn = SAMPLE in asked
        previews = preview.due_epoch(done, self.length) or preview.due_step(done, self.length)
        validation = self.settings.validation.cadence
        validates = validation.due_epoch(done, self.length) or validation.due_step(done, self.length)
        if not (by_epoch or by_step or wanted or previews or validates or drawn):
            return
        began = time.perf_counter()
        self._read(display, leave=0)
        known = self.settings.names
        names = [self._name(known.after_epoch, done)] if by_epoch else []
        if by_step or (SAVE in asked and not names and done < self.length.total_steps):
            names.append(self._name(known.after_step, done))
        names = list(dict.fromkeys(names))
        for name in names:
            self._export(name, done)
        if validates:
            self._validate(done)
        if previews or drawn:
            self._preview(done, by_epoch=epoch_ends and preview.due_epoch(done, self.length), asked=drawn)
        states = names if self.settings.keep.states else []
        if wanted or states:
            self._checkpoint(done, states)
        if names:
            self._drop_surplus()
        self.speed.exclude(time.perf_counter() - began)

    def _name(self, kind: Callable[[str, int, int], str], done: int) -> str:
        return kind(self.settings.folder.name, self.length.epoch(done), done)

    def _export(self, name: str, done: int) -> Path | None:
        path = self.exports.write(name, done)
        self.export_timer.restart()
        return path

    def _rescue(self, start: int, error: BaseException) -> None:
        """Save what was trained before an error: the state when it is that of a whole step, and what the names say.

        Of several processes the others may not know of the error, and would be waited for in vain.
        """
        diverged = isinstance(error, NonFiniteError)
        alone = self.processes.world == 1 or diverged
        if self.done == start or not alone or not isinstance(error, Exception):
            return
        if name := self._name(self.settings.names.at_error, self.done):
            self.exports.rescue(name, self.done)
        if not (diverged or self._in_step):
            try:
                self._checkpoint(self.done)
            except NonFiniteError as second:  # the first error is what the person must hear of
                log.warning("%s", second)

    def _preview(self, done: int, by_epoch: bool = False, asked: bool = False) -> None:
        if not (self.settings.preview.enabled or asked):
            return
        if self.processes.is_main:
            label = f"e{self.length.epoch(done):06d}" if by_epoch else f"{done:06d}"
            try:
                with settled(self.trainer.phases):
                    pictures = self.trainer.preview(self.settings.folder.samples, label, done)
                for picture in pictures:
                    log.info("sample %s", picture.path)
                if asked and not pictures:
                    log.info("there is nothing to draw: the preset names no previews")
                self.settings.track.log_pictures(pictures, done)
            except (OSError, torch.OutOfMemoryError) as error:  # no reason to lose a night's training
                log.warning("no preview at step %d: %s", done, error)
        self.processes.barrier()

    def _validate(self, done: int) -> None:
        """Measure, remember what is best, and keep the best file."""
        improved, patient, validation = False, True, self.settings.validation
        values: Mapping[str, float] = {}
        if self.processes.is_main or validation.together:
            with settled(self.trainer.phases):
                values = self.trainer.validate(self.settings.folder.samples, f"{done:06d}", done)
        if self.processes.is_main:
            names = self.best.update(values, done)
            log.info("validation at step %d: %s", done, self.best.spoken(values))
            row = {name if "/" in name else f"val/{name}": value for name, value in values.items()}
            self.settings.folder.append_metrics({"step": done, **row})
            self.settings.track.log(row, done)
            improved = validation.best_by in names
            patient = not validation.patience or self.best.waited(validation.patience_by) < validation.patience
        self.processes.barrier()
        if self.processes.any(improved):
            self._export(f"{self.settings.folder.name}-best", done)
        self._patient = not self.processes.any(not patient)
        if not self._patient and done < self.length.total_steps:
            log.info("%d validations brought nothing better: the training ends here", validation.patience)

    # -- state ------------------------------------------------------------------------------------------------------

    def _begin(self, found: Found | None) -> int:
        """Restore the state, or make the folder ready for a new run. Gives the number of steps already done."""
        start = 0
        if found is not None:
            start = self.state.restore(found)
            if found.kept and not self.settings.folder.file(f"-best{self.trainer.suffix}").exists():
                self.best.load_state_dict({})  # of a file that is elsewhere
            for change in found.changes:
                log.info("made differently from here on: %s", change)
            note_other_machine(found, machine_facts(self.processes))
            log.info("going on from step %d of %d (%s)", start, self.length.total_steps, found.folder)
        if self.processes.is_main:
            self.settings.folder.claim()
            if found is None or found.kept:
                self.checkpoints.clear()
            self.settings.folder.cut_metrics(start)
        self._status("running", step=start)
        self.processes.barrier()
        return start

    def _checkpoint(self, done: int, names: Sequence[str] = ()) -> bool:
        """Save everything that a continuation needs, and say whether that went well; keep it under these names too.

        A full disk is no reason to lose the run: it goes on, and the checkpoint before is still there.
        """
        self.exports.check_weights()
        saved = True
        if self.processes.is_main:
            try:
                run = {"fingerprint": dict(self.settings.fingerprint), "resumed": self.settings.resumed}
                manifest = {**run, "machine": machine_facts(self.processes)}
                folder = self.checkpoints.save(done, self.state.collect(done), manifest)
                self._status("running", step=done)
                for name in names:
                    self._keep_state(folder, name)
            except SAVE_ERRORS as error:
                saved = False
                free = self.checkpoints.free_gib()
                log.warning("cannot write the checkpoint of step %d (%.2f GiB are free): %s", done, free, error)
        self.processes.barrier()
        self.timer.restart()
        return saved

    def _keep_state(self, checkpoint: Path, name: str) -> None:
        state = self.settings.folder.path / (name + STATE_ENDING)
        keep_state(checkpoint, state)
        log.info("state %s", state)
        self.settings.uploads.state(state)

    def _drop_surplus(self) -> None:
        if self.processes.is_main:
            settings = self.settings
            for path in surplus(settings.folder, self.trainer.suffix, settings.keep, settings.names):
                self.settings.uploads.remove(path)

    # -- ends -------------------------------------------------------------------------------------------------------

    def _finish(self, done: int) -> Path | None:
        """Export the result, after all steps or when validation has lost patience."""
        if self.settings.validation.enabled and self._patient:
            self._validate(done)
        result = self._export(self._name(self.settings.names.at_end, done), done)
        self._drop_surplus()
        if self.settings.keep.keeps_last_state:
            self._checkpoint(done, [self.settings.folder.name])
        self._preview(done)
        facts = {"fingerprint": dict(self.settings.fingerprint), "resumed": self.settings.resumed}
        self._status("finished", step=done, result=str(result), **facts)
        if self.processes.is_main:
            self.checkpoints.clear()
        self.processes.barrier()
        return result

    def _asked(self, done: int) -> set[Command | None]:
        """The commands that a person or the clock has given to any process; None asks for a checkpoint alone."""
        commands = self.settings.commands
        if commands is not DEAF:
            commands.look()
        known = (None, *COMMANDS)
        clocks = {None: self.timer, SAVE: self.export_timer}
        flags = [command in commands.heard or (command in clocks and clocks[command].due()) for command in known]
        asked = {each for each, flag in zip(known, self._of_all(done, flags), strict=True) if flag}
        commands.heard -= asked
        return asked

    def _of_all(self, done: int, flags: Sequence[bool]) -> Sequence[bool]:
        """Flags of any process, so that all do the same. On several GPUs only now and then: the answer takes time."""
        seldom = self.processes.world > 1 and self.processes.device.type != "cpu"
        if seldom and done % ASK_EVERY and not self.length.ends_epoch(done):
            return [False] * len(flags)
        return self.processes.any_of(flags)

    def _stop_if_told(self, done: int, display: RunDisplay, *, now: bool) -> None:
        if any(self._of_all(done, [self.stop.signal is not None])):
            self._read(display, leave=0)
            self._stop(done, self.stop.signal or 15)
        ends = self._last_epoch and self.length.ends_epoch(done)
        if not (now or ends):
            return
        self._read(display, leave=0)
        name = self._name(self.settings.names.after_epoch, done)
        fresh = ends and not self.settings.save.due_epoch(done, self.length)
        if fresh:
            self._export(name, done)
        self._stop(done, 0, [name] if fresh and self.settings.keep.states else [])

    def _stop(self, done: int, number: int, states: Sequence[str] = ()) -> None:
        """Because of a signal, or of a command when the number is 0."""
        saved = self._checkpoint(done, states)
        if name := self._name(self.settings.names.at_stop, done):
            self.exports.rescue(name, done)
            self.processes.barrier()
        self._drop_surplus()
        stopped = Stopped(number)
        facts = {"exit_status": stopped.exit_status, "continue_with": self.settings.continue_command}
        self._status("stopped", step=done, **facts)
        what = "everything is saved" if saved else "its checkpoint could not be written, the one before is still there"
        log.info("stopped after step %d of %d; %s", done, self.length.total_steps, what)
        log.info("to go on, give the same command again: %s", self.settings.continue_command)
        raise stopped

    def _refuse_nonfinite(self, reading: Reading) -> None:
        names = sorted(set(reading.suspects()))
        newest = self.checkpoints.newest() if self.processes.is_main else None
        kept = f"the last good checkpoint is step {newest.step}" if newest else "no checkpoint was made before it"
        values = reading.values
        wrong = [name for name, value in values.items() if name != "bad" and not math.isfinite(value)]
        terms = [name for name in wrong if name.split("/")[-1] not in ("loss", "grad_norm")]
        found = f"the loss is {values['loss']} and the gradient norm {values['grad_norm']}"
        if "loss" not in values or math.isfinite(values["loss"] + values["grad_norm"]):
            found = ", ".join(f"{name} is {values[name]}" for name in wrong)
        by = f" by {', '.join(terms)}" if terms else ""
        fused = any(phase.fused for phase in self.trainer.phases)
        spared = "the weights that the backward pass had yet to reach were" if fused else "the weights were"
        raise NonFiniteError(
            f"step {reading.step}: {found}{by}, so {spared} not touched; {kept}. Pictures of the step: "
            f"{', '.join(names)}. Look at them first; then try a lower learning rate or mixed_precision "
            '"bf16" or "no"'
        )

    def _status(self, state: str, **facts: Any) -> None:
        if self.processes.is_main:
            facts = {"total_steps": self.length.total_steps, "seed": self.settings.seed, **facts}
            self.settings.folder.write_status(state, **facts)
