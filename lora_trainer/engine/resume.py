"""Where a run begins: at the start, at its newest checkpoint, at a state, or not at all because it is finished."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lora_trainer.engine.checkpoints import CheckpointFolder, Found, differences
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.run_folder import RunFolder
from lora_trainer.errors import Refusal

log = logging.getLogger(__name__)


class AlreadyFinished(Exception):
    """The same command was given again after the run had ended well."""


@dataclass(frozen=True)
class Resumed:
    """What a preset asks to go on from.

    `text` is how it says so. `state` is a state of ours; `weights` is a file that stands for the first weights instead,
    and `facts` what it adds to the fingerprint. All are missing where the run's own checkpoint has taken over.
    """

    text: str = ""
    state: Found | None = None
    weights: Path | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The state's; 0 without one."""
        return int(self.state.manifest.get("fingerprint", {}).get("seed", 0)) if self.state is not None else 0


NOTHING_RESUMED = Resumed()


def find_start(
    folder: RunFolder,
    fingerprint: Mapping[str, Any],
    total_steps: int,
    restart: bool,
    resumed: Resumed = NOTHING_RESUMED,
) -> Found | None:
    """The checkpoint or state to go on from, or None for a new run.

    `fingerprint` holds everything that touched the steps already made. A checkpoint of another preset or other data is
    refused with what differs, and so is overwriting a finished run that was made differently. A state that the preset
    names may be of another run: what differs is noted in what is found. The run's own checkpoint comes before it,
    unless it has fewer steps.
    """
    folder.refuse_if_closed()
    folder.refuse_if_busy()
    state = resumed.state
    if not restart and (own := CheckpointFolder(folder.checkpoints).newest()) is not None:
        _refuse_other_run(folder, "a checkpoint", own.manifest.get("fingerprint", {}), fingerprint)
        if own.step > total_steps:
            raise Refusal(
                f"{own.folder}: the checkpoint is at step {own.step}, beyond this preset's {total_steps} steps; "
                "train longer, or begin anew with --restart"
            )
        if state is None or own.manifest.get("resumed") == resumed.text or own.step >= state.step:
            if state is not None:
                text = "the run's own checkpoint is at step %d, so it goes on from there and not from %s"
                log.info(text, own.step, resumed.text)
            return own
    elif not restart:
        _refuse_finished(folder, fingerprint, total_steps, resumed)
    if state is None:
        return None
    if state.step >= total_steps:
        raise Refusal(
            f"{state.folder}: the state is at step {state.step}, and this preset ends at step {total_steps}, counted "
            "from the beginning; train longer"
        )
    return replace(state, changes=tuple(differences(state.manifest.get("fingerprint", {}), fingerprint)), kept=True)


def fingerprint_of(folder: RunFolder) -> Mapping[str, Any]:
    """What the run in this folder was made with, as its newest checkpoint or its end says; empty without either."""
    own = CheckpointFolder(folder.checkpoints).newest()
    found = (folder.status() or {}) if own is None else own.manifest
    fingerprint = found.get("fingerprint", {})
    return fingerprint if isinstance(fingerprint, Mapping) else {}


def _refuse_finished(folder: RunFolder, fingerprint: Mapping[str, Any], total_steps: int, resumed: Resumed) -> None:
    """AlreadyFinished or Refusal when this run has ended well; a longer one may go on from a state."""
    status = folder.status()
    if status is None or status.get("state") != "finished" or not Path(str(status.get("result"))).exists():
        return
    _refuse_other_run(folder, "a finished run", status.get("fingerprint", {}), fingerprint)
    if status.get("total_steps") == total_steps:
        raise AlreadyFinished(f"this run is finished: {status.get('result')}; --restart trains it anew")
    if resumed.state is None:
        raise Refusal(
            f"{folder.path}: the run {folder.name} is finished after {status.get('total_steps')} steps, and this "
            f"preset asks for {total_steps}; begin anew with --restart, or give another output_name"
        )


def machine_facts(processes: Processes) -> dict[str, Any]:
    """What changes the rounding of a step without changing its meaning."""
    return {"device": processes.device.type, "processes": processes.world, "threads": torch.get_num_threads()}


def note_other_machine(found: Found, facts: Mapping[str, Any]) -> None:
    """Say when the bits will differ though the training is the same: other threads, other processes."""
    for change in differences(found.manifest.get("machine", {}), facts):
        log.info("resuming on something else: %s; the result will be equal up to rounding", change)


def _refuse_other_run(folder: RunFolder, what: str, saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    changed = differences(saved, current)
    if changed:
        raise Refusal(
            f"{folder.path}: holds {what} of {folder.name} that was made differently: {'; '.join(changed)}. "
            "Put the old value back, give another output_name, or begin anew with --restart"
        )
