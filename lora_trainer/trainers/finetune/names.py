"""The names of what a fine-tuning writes: EveryDream2's."""

from __future__ import annotations

from dataclasses import dataclass

from lora_trainer.engine.cadence import Length
from lora_trainer.engine.kept_files import Names

FOLDERS = "ckpts"  # of the diffusers folders, in the run's
AVERAGED = "_ema"


@dataclass(frozen=True)
class EveryDreamNames(Names):
    """`last-myproj-ep03-gs00120`: after three whole epochs and 120 steps."""

    length: Length
    prepend_last: bool = True

    def after_epoch(self, name: str, epoch: int, done: int) -> str:
        whole = epoch if self.length.ends_epoch(done) else epoch - 1
        return f"{name}-ep{whole:02d}-gs{done:05d}"

    def after_step(self, name: str, epoch: int, done: int) -> str:
        return self.after_epoch(name, epoch, done)

    def at_end(self, name: str, epoch: int, done: int) -> str:
        return f"{'last-' if self.prepend_last else ''}{self.after_epoch(name, epoch, done)}"

    def at_stop(self, name: str, epoch: int, done: int) -> str:
        return f"interrupted-{self.after_step(name, epoch, done)}"

    def at_error(self, name: str, epoch: int, done: int) -> str:
        return f"errored-{self.after_step(name, epoch, done)}"
