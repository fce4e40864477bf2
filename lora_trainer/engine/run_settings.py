"""What the loop takes from a preset, whatever the trainer: when something is due, where it goes, how it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_trainer.engine.cadence import Cadence
from lora_trainer.engine.commands import DEAF, Commands
from lora_trainer.engine.hub import NO_UPLOADS, Uploads
from lora_trainer.engine.kept_files import KEEP_ALL, SD_SCRIPTS_NAMES, Keep, Names
from lora_trainer.engine.run_folder import RunFolder
from lora_trainer.engine.trackers import Trackers
from lora_trainer.engine.validation import Validation


@dataclass(frozen=True)
class RunSettings:
    """What the engine takes from a preset, whatever the trainer."""

    folder: RunFolder
    fingerprint: Mapping[str, Any]
    save: Cadence
    preview: Cadence
    validation: Validation
    checkpoint: Cadence
    checkpoint_minutes: float
    log_every: int
    workers: int
    track: Trackers
    seed: int
    continue_command: str
    epoch_ends: tuple[int, ...] = ()  # where epochs differ in length
    save_minutes: float = 0.0  # between two exported files, besides `save`; 0 is never
    preview_first: bool = True  # before the first step too
    names: Names = SD_SCRIPTS_NAMES
    keep: Keep = KEEP_ALL
    uploads: Uploads = NO_UPLOADS
    commands: Commands = DEAF
    resumed: str = ""  # what the preset asks to go on from
