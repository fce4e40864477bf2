"""What a LoRA preset asks to go on from: a state of ours or of sd-scripts, in a folder or on the Hugging Face hub."""

from __future__ import annotations

import logging
from pathlib import Path

from lora_trainer.config.lora import LoraPreset
from lora_trainer.engine.checkpoints import MANIFEST, STATE, CheckpointFolder, read_state
from lora_trainer.engine.hub import HubPlace, download
from lora_trainer.engine.resume import NOTHING_RESUMED, Resumed
from lora_trainer.engine.run_folder import RunFolder
from lora_trainer.errors import Refusal
from lora_trainer.models.sd_scripts_state import sd_scripts_weights
from lora_trainer.models.weights_identity import weights_identity

log = logging.getLogger(__name__)

FIRST_WEIGHTS = "first weights"  # its name in the fingerprint


def find_resumed(preset: LoraPreset, folder: RunFolder, restart: bool) -> Resumed:
    """Refusal when there is no such state, unless this run has gone on from it already and needs it no more."""
    text = preset.resumes_from
    if not text:
        return NOTHING_RESUMED
    try:
        if preset.resumes_from_hub:
            place = HubPlace.read(text)
            log.info("resume: downloading %s from %s", place.path, place.repo_id)
            return _read(download(place, preset.huggingface_token.get_secret_value()), text)
        return _read(Path(text), text)
    except Refusal:
        own = None if restart else _own_fingerprint(folder, text)
        if own is None:
            raise
        return Resumed(text, facts={key: own[key] for key in (FIRST_WEIGHTS,) if key in own})


def check_resume(preset: LoraPreset) -> None:
    """What can be said at once: whether the folder is there, or the hub's address can be read."""
    text = preset.resumes_from
    if text and preset.resumes_from_hub:
        HubPlace.read(text)
    elif text:
        _check_folder(Path(text))


def _own_fingerprint(folder: RunFolder, text: str) -> dict[str, object] | None:
    """That of this run's checkpoint, or of its end, if it has gone on from the same state."""
    found, status = CheckpointFolder(folder.checkpoints).newest(), folder.status() or {}
    facts = found.manifest if found is not None else status if status.get("state") == "finished" else {}
    return dict(facts.get("fingerprint", {})) if facts.get("resumed") == text else None


def _read(folder: Path, text: str) -> Resumed:
    _check_folder(folder)
    found = read_state(folder) or CheckpointFolder(folder).newest()
    if found is not None:
        return Resumed(text, found)
    if (folder / STATE).exists() or (folder / MANIFEST).exists():
        raise Refusal(f"resume: {folder}: the state is damaged or of another version; give another one")
    weights = sd_scripts_weights(folder)
    if weights is None:
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise Refusal(
            f"resume: {folder}: no state is there (it holds {held}); give a folder such as my_lora-000002-state. For a "
            "LoRA file there is network_weights"
        )
    log.info("resume: %s is a state of sd-scripts: the weights are taken over; steps and optimizer begin anew", folder)
    return Resumed(text, weights=weights, facts={FIRST_WEIGHTS: weights_identity(weights)})


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        what = "a file, where a state is a folder; for a LoRA file there is network_weights" if folder.exists() else ""
        raise Refusal(f"resume: {folder}: {what or 'there is no such folder; correct the path or leave it empty'}")
