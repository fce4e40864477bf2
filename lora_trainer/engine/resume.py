"""Where a run begins: at the start, at its newest checkpoint, or not at all because it is finished."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_trainer.engine.checkpoints import CheckpointFolder, Found, differences
from lora_trainer.engine.run_folder import RunFolder
from lora_trainer.errors import Refusal

log = logging.getLogger(__name__)


class AlreadyFinished(Exception):
    """The same command was given again after the run had ended well."""


def find_start(folder: RunFolder, fingerprint: Mapping[str, Any], total_steps: int, restart: bool) -> Found | None:
    """The checkpoint to go on from, or None for a new run.

    `fingerprint` holds everything that touched the steps already made. A checkpoint of another preset or other data is
    refused with what differs, and so is overwriting a finished run that was made differently.
    """
    folder.refuse_if_busy()
    if restart:
        return None
    found = CheckpointFolder(folder.checkpoints).newest()
    if found is not None:
        _refuse_other_run(folder, "a checkpoint", found.manifest.get("fingerprint", {}), fingerprint)
        if found.step > total_steps:
            raise Refusal(
                f"{found.folder}: the checkpoint is at step {found.step}, beyond this preset's {total_steps} steps; "
                "train longer, or begin anew with --restart"
            )
        return found
    status = folder.status()
    if status is not None and status.get("state") == "finished" and Path(str(status.get("result"))).exists():
        _refuse_other_run(folder, "a finished run", status.get("fingerprint", {}), fingerprint)
        if status.get("total_steps") == total_steps:
            raise AlreadyFinished(f"this run is finished: {status.get('result')}; --restart trains it anew")
        raise Refusal(
            f"{folder.path}: the run {folder.name} is finished after {status.get('total_steps')} steps, and this "
            f"preset asks for {total_steps}; begin anew with --restart, or give another output_name"
        )
    return None


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
