"""What every training knows of itself before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lora_trainer.config.common import CommonPreset
from lora_trainer.engine.cadence import NEVER, Cadence
from lora_trainer.engine.hub import HubSettings
from lora_trainer.engine.kept_files import KEEP_ALL, SD_SCRIPTS_NAMES, Keep, Names
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.resume import NOTHING_RESUMED, AlreadyFinished, Resumed
from lora_trainer.engine.validation import NO_VALIDATION, Validation
from lora_trainer.errors import Refusal

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """Plain data, so that the main process can look and tell the others. A trainer's own job adds what it found.

    `fingerprint` is everything that decides about the steps already made, `resumed` what the preset asks to go on from.
    """

    preset: CommonPreset
    seed: int
    world: int
    fingerprint: dict[str, Any]
    resumed: Resumed = field(default=NOTHING_RESUMED, kw_only=True)

    @property
    def steps_per_epoch(self) -> int:
        raise NotImplementedError

    @property
    def total_steps(self) -> int:
        raise NotImplementedError

    @property
    def total_batch(self) -> int:
        """Pictures per optimizer step, over all processes and passes."""
        raise NotImplementedError

    @property
    def epoch_ends(self) -> tuple[int, ...]:
        """The steps done when each epoch ends, where epochs differ in length."""
        return ()

    @property
    def mixed_precision(self) -> str:
        return self.preset.mixed_precision

    @property
    def names(self) -> Names:
        """What the files are called."""
        return SD_SCRIPTS_NAMES

    @property
    def saves(self) -> Cadence:
        """When files are written before the end."""
        return NEVER

    @property
    def save_minutes(self) -> float:
        """Minutes between files that are written besides; 0 is never."""
        return 0.0

    @property
    def keep(self) -> Keep:
        """How many of those files stay, and whether there are states beside them."""
        return KEEP_ALL

    @property
    def checkpoints(self) -> Cadence:
        """When the rolling checkpoint is written."""
        return Cadence(self.preset.checkpoint_every_n_epochs, self.preset.checkpoint_every_n_steps)

    @property
    def hub(self) -> HubSettings | None:
        """Where the files are uploaded."""
        return None

    @property
    def previews(self) -> Cadence:
        return NEVER

    @property
    def previews_first(self) -> bool:
        """Whether they are drawn before the first step too."""
        return False

    @property
    def validation(self) -> Validation:
        return NO_VALIDATION

    @property
    def workers(self) -> int:
        """Processes that read the data beside the training; 0 is a thread."""
        return 0


class FollowsJob:
    """The part of engine.phase.Trainer that a trainer has from its job."""

    job: Job

    @property
    def total_steps(self) -> int:
        return self.job.total_steps

    @property
    def steps_per_epoch(self) -> int:
        return self.job.steps_per_epoch

    @property
    def total_batch(self) -> int:
        return self.job.total_batch


def attempt(look: Callable[[], T], problems: list[str]) -> T | None:
    """What a look finds, or None with its problems added, so that a person hears of all of them at once."""
    try:
        return look()
    except Refusal as refusal:
        problems.extend(problem for problem in refusal.problems if problem not in problems)
        return None


def found_by_main(processes: Processes, look: Callable[[], T]) -> T:
    """Look in the main process alone, and have everyone get what it finds or stop with what it refuses."""
    answer: tuple[str, Any] = ("", None)
    if processes.is_main:
        try:
            answer = ("found", look())
        except Refusal as refusal:
            answer = ("refused", refusal.problems)
        except AlreadyFinished as finished:
            answer = ("finished", str(finished))
    word, value = processes.from_main(answer)
    if word == "refused":
        raise Refusal(*value)
    if word == "finished":
        raise AlreadyFinished(value)
    found: T = value
    return found
