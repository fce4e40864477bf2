"""What stays of the files and states that a run saves on its way, and under which names."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_trainer import atomic
from lora_trainer.engine.checkpoints import MANIFEST, STATE
from lora_trainer.engine.run_folder import RunFolder

log = logging.getLogger(__name__)

STATE_ENDING = "-state"
EPOCHS, STEPS = r"-\d{6}", r"-step\d{8}"  # how the names of files saved by epochs and by steps end


@dataclass(frozen=True)
class Keep:
    """Whether a state is kept beside each file and at the end, and how many of each kind stay; 0 is all of them."""

    states: bool = False
    state_at_end: bool = False
    epoch_files: int = 0
    step_files: int = 0
    epoch_states: int = 0
    step_states: int = 0

    @property
    def keeps_last_state(self) -> bool:
        return self.states or self.state_at_end


KEEP_ALL = Keep()


class Names:
    """What exported files are called, without their endings: here as by sd-scripts.

    `name` is the run's, `epoch` the one that the last of `done` steps lies in, counted from 1. An empty name is for
    what is not exported.
    """

    def after_epoch(self, name: str, epoch: int, done: int) -> str:
        return f"{name}-{epoch:06d}"

    def after_step(self, name: str, epoch: int, done: int) -> str:
        """Of a file that is saved by steps or by the clock."""
        return f"{name}-step{done:08d}"

    def at_end(self, name: str, epoch: int, done: int) -> str:
        return name

    def at_stop(self, name: str, epoch: int, done: int) -> str:
        """Of a run that a signal or a person ends."""
        return ""

    def at_error(self, name: str, epoch: int, done: int) -> str:
        return ""

    def file(self, stem: str, suffix: str) -> str:
        """The name with the format's ending, where what is written under it is a file."""
        return stem + suffix

    def by_epochs(self, name: str) -> str:
        """A regular expression for what `after_epoch` gives."""
        return re.escape(name) + EPOCHS

    def by_steps(self, name: str) -> str:
        """A regular expression for what `after_step` gives."""
        return re.escape(name) + STEPS


SD_SCRIPTS_NAMES = Names()


def surplus(folder: RunFolder, suffix: str, keep: Keep, names: Names = SD_SCRIPTS_NAMES) -> Iterator[Path]:
    """The files and states of this run beyond those that stay, the oldest first."""
    by_epochs, by_steps = names.by_epochs(folder.name), names.by_steps(folder.name)
    for moments, ending, count in (
        (by_epochs, suffix, keep.epoch_files),
        (by_steps, suffix, keep.step_files),
        (by_epochs, STATE_ENDING, keep.epoch_states),
        (by_steps, STATE_ENDING, keep.step_states),
    ):
        if count:
            found = [path for path in folder.path.iterdir() if _is_of(path.name, moments, ending, names)]
            yield from sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))[:-count]


def _is_of(name: str, moments: str, ending: str, names: Names) -> bool:
    found = re.match(moments, name)
    return found is not None and name == (found[0] + ending if ending == STATE_ENDING else names.file(found[0], ending))


def remove(path: Path) -> None:
    """Delete a file, or a folder so that no half of it is left. What cannot be deleted is tried again the next time."""
    try:
        if path.is_dir():
            atomic.remove_folder(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:  # on Windows another program may hold it
        log.warning("cannot be deleted: %s", error)


def keep_state(checkpoint: Path, state: Path) -> None:
    """Keep a checkpoint under a name of its own. Where the disk can, both share the bytes as long as both are there.

    Raises OSError when the disk is full; a state of that name is gone then.
    """
    if state.exists():
        atomic.remove_folder(state)
    with atomic.staged_folder(state) as staged:
        for name in (STATE, MANIFEST):
            _link(checkpoint / name, staged / name)


def _link(source: Path, target: Path) -> None:
    """Checkpoints are never written to again, so that two names for one content are safe."""
    try:
        os.link(source, target)
    except (OSError, NotImplementedError):  # another file system, or one without links
        shutil.copyfile(source, target)
