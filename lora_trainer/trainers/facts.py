"""What a run knows of itself when it begins, for the report: its preset, its material, how its numbers are read."""

from __future__ import annotations

import logging
import platform
from typing import Any

import torch

from lora_trainer import __version__
from lora_trainer.config.kinds import as_json
from lora_trainer.config.public import public_values, without_secrets
from lora_trainer.config.reader import Loaded
from lora_trainer.config.schema import default_as_written
from lora_trainer.config.setting import keys_of
from lora_trainer.engine.run_facts import Material, PresetKey, RunFacts
from lora_trainer.engine.run_folder import RunFolder
from lora_trainer.engine.validation import Validation
from lora_trainer.report.verdict import without_folders
from lora_trainer.trainers.job import Job
from lora_trainer.trainers.material import cut
from lora_trainer.trainers.starts import STARTS

log = logging.getLogger(__name__)

LONGEST_VALUE = 400
ELSEWHERE = ("trainer", "about", "$schema", "output_dir", "output_name")  # the page says them in another place


def leave_facts(folder: RunFolder, loaded: Loaded, job: Job, command: str, device: torch.device) -> None:
    """Write them beside the status. No run fails because of them."""
    try:
        facts_of(loaded, job, command, device).write(folder.facts_file)
    except Exception as error:
        log.warning("what the report tells of the preset and the pictures is missing: %s", error)


def facts_of(loaded: Loaded, job: Job, command: str, device: torch.device) -> RunFacts:
    preset, start = loaded.preset, STARTS[loaded.preset.trainer]
    material: Material = start.call("material", job) if start.material else Material(f"Trainer {preset.trainer}")
    return RunFacts(
        output_name=preset.output_name,
        trainer=preset.trainer,
        material=material,
        about=preset.about,
        command=without_secrets(command),
        memory_advice=start.advice(job.preset),
        changed=changed_keys(loaded),
        inert=tuple((key, without_folders(reason)) for key, reason in loaded.inert.items()),
        values={name: shortened(value) for name, value in public_values(preset).items()},
        higher_is_better=directions(job.validation),
        versions=(
            ("lora_trainer", __version__),
            ("PyTorch", torch.__version__),
            ("Python", platform.python_version()),
            ("on", torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"),
        ),
    )


def changed_keys(loaded: Loaded) -> tuple[PresetKey, ...]:
    """The keys whose value is not the default and has an effect, in the order of the reference."""
    shown, found = shortened(public_values(loaded.preset)), []
    for name, key in keys_of(type(loaded.preset)).items():
        if name not in shown or name in ELSEWHERE or name in loaded.inert:
            continue
        if as_json(getattr(loaded.preset, key.field)) == as_json(key.default):
            continue
        default = "" if key.setting.required else _text(default_as_written(key))
        found.append(PresetKey(name, key.group, _text(shown[name]), default, key.setting.about))
    return tuple(found)


def shortened(value: Any) -> Any:
    """Of each folder in a value the last part, wherever in it."""
    if isinstance(value, dict):
        return {name: shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shortened(item) for item in value]
    return without_folders(value) if isinstance(value, str) else value


def directions(validation: Validation) -> dict[str, bool]:
    """By the names in metrics.jsonl; what decides about the best file comes first."""
    ordered = sorted(validation.higher_is_better.items(), key=lambda item: item[0] != validation.best_by)
    return {name if "/" in name else f"val/{name}": higher for name, higher in ordered}


def _text(value: object) -> str:
    """As a person would write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        return cut(", ".join(_text(item) for item in value), LONGEST_VALUE)
    if isinstance(value, dict):
        return cut(", ".join(f"{name}: {text}" for name, item in value.items() if (text := _text(item))), LONGEST_VALUE)
    if isinstance(value, list):
        return cut("; ".join(_text(item) for item in value), LONGEST_VALUE)
    return cut(str(value), LONGEST_VALUE)
