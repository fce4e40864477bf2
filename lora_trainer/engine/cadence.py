"""When something is due, as a function of the number of finished steps."""

from __future__ import annotations

import bisect
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Length:
    """How long a run is. `epoch_ends` are the steps done when each epoch ends, where epochs differ in length."""

    total_steps: int
    steps_per_epoch: int
    epoch_ends: tuple[int, ...] = ()

    def epoch(self, done: int) -> int:
        """The epoch in which the step before `done` lies, counted from 1."""
        if self.epoch_ends:
            return bisect.bisect_left(self.epoch_ends, max(1, done)) + 1
        return max(0, done - 1) // self.steps_per_epoch + 1

    @property
    def epochs(self) -> int:
        return self.epoch(self.total_steps)

    def ends_epoch(self, done: int) -> bool:
        if self.epoch_ends:
            return done in self.epoch_ends
        return done > 0 and done % self.steps_per_epoch == 0


@dataclass(frozen=True)
class Cadence:
    """Every so many epochs, from the first one that counts, or steps; 0 is never. The end of the run is not counted: it
    has its own files."""

    every_n_epochs: int = 0
    every_n_steps: int = 0
    first_epoch: int = 1

    @property
    def enabled(self) -> bool:
        return self.every_n_epochs > 0 or self.every_n_steps > 0

    def due_epoch(self, done: int, length: Length) -> bool:
        if not (self.every_n_epochs and length.ends_epoch(done) and done < length.total_steps):
            return False
        epoch = length.epoch(done)
        return epoch % self.every_n_epochs == 0 and epoch >= self.first_epoch

    def due_step(self, done: int, length: Length) -> bool:
        return bool(self.every_n_steps) and done % self.every_n_steps == 0 and 0 < done < length.total_steps

    def moments(self, length: Length) -> list[int]:
        """All finished-step counts at which something is due, for the plan."""
        return [
            done for done in range(1, length.total_steps) if self.due_epoch(done, length) or self.due_step(done, length)
        ]


NEVER = Cadence()


class Timer:
    """Every so many minutes of wall time; 0 is never. It may decide about checkpoints only, never about training."""

    def __init__(self, minutes: float) -> None:
        self.seconds = minutes * 60
        self.restart()

    def restart(self) -> None:
        self._since = time.monotonic()

    def due(self) -> bool:
        return self.seconds > 0 and time.monotonic() - self._since >= self.seconds
