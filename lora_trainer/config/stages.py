"""A preset with `stages`: trainings one after the other, each starting from the result of the one before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lora_trainer.config.entries import Entry
from lora_trainer.config.problems import PresetError, shown
from lora_trainer.config.trainers import Trainer

STAGES, NAME = "stages", "stage"
OF_THE_WHOLE = ("trainer", STAGES, "output_dir")  # keys that no stage may have of its own
FORMATS = {"save_checkpoint_format": {"pth": ".pth"}}  # keys that change the ending of a result


@dataclass(frozen=True)
class Stage:
    """One training's keys, its name within the preset ("" when there are no stages), and whether it starts from the
    result of the one before."""

    entries: dict[str, Entry]
    name: str = ""
    follows: bool = False


def split_stages(path: Path, written: Mapping[str, Entry], trainer: Trainer) -> tuple[Stage, ...]:
    """A stage has all the preset's keys, with its own in their place. Overrides win over both.

    Each stage works in its own folder below `output_dir` and starts from the result of the one before, unless it says
    otherwise. Raises PresetError.
    """
    listed = written.get(STAGES)
    if listed is None:
        return (Stage(trainer.unfold(written)),)
    if not isinstance(listed.value, list) or not listed.value:
        raise PresetError(listed.wrong_value('found no list of stages; write [{"stage": "2x", ...}, ...]'))
    if not trainer.starts_from:
        raise PresetError(listed.wrong_key("this trainer has no stages; remove the key"))
    shared = trainer.unfold({key: entry for key, entry in written.items() if key != STAGES})
    overridden = {key for key, entry in shared.items() if entry.text is not None}
    stages: list[Stage] = []
    for number in range(len(listed.value)):
        name, own = _own_keys(listed.inside(number), trainer)
        if name in (stage.name for stage in stages):
            raise PresetError(own[NAME].wrong_value(f"there is another stage {name}; give each its own name"))
        entries = {**shared, **{key: entry for key, entry in own.items() if key not in overridden | {NAME}}}
        before = stages[-1] if stages else None
        entries = _placed(entries, own, f"{number + 1}_{name}", name, before, trainer)
        stages.append(Stage(entries, name, before is not None and trainer.starts_from not in own))
    return tuple(stages)


def _own_keys(item: Entry, trainer: Trainer) -> tuple[str, dict[str, Entry]]:
    if not isinstance(item.value, dict):
        raise PresetError(item.wrong_value(f'found {shown(item.value)}; a stage is an object: {{"stage": "2x", ...}}'))
    own = trainer.unfold({key: replace(item.inside(key), key=key) for key in item.value})
    name = own.get(NAME)
    if name is None or not isinstance(name.value, str) or not name.value.strip():
        raise PresetError(item.wrong_value('a stage needs a name: "stage": "2x"'))
    for key in OF_THE_WHOLE:
        if key in own:
            raise PresetError(own[key].wrong_key("belongs to the whole preset, not to a stage"))
    return name.value.strip(), own


def _placed(
    entries: dict[str, Entry], own: Mapping[str, Entry], folder: str, name: str, before: Stage | None, trainer: Trainer
) -> dict[str, Entry]:
    """The keys with the stage's own folder, its file's name, and the file that it starts from."""
    for key, tail in (("output_dir", f"/{folder}"), ("output_name", f"_{name}")):
        if key in entries and isinstance(entries[key].value, str) and key not in own:
            entries[key] = replace(entries[key], value=f"{str(entries[key].value).rstrip('/')}{tail}", text=None)
    if before is not None and trainer.starts_from not in own:
        entries[trainer.starts_from] = replace(own[NAME], key=trainer.starts_from, value=result_of(before, trainer))
    return entries


def result_of(stage: Stage, trainer: Trainer) -> str:
    """The file that a stage leaves, or its folder."""
    values = {key: str(entry.value) for key, entry in stage.entries.items()}
    if trainer.leaves_a_folder:
        return values.get("output_dir", "")
    endings = [endings[values[key]] for key, endings in FORMATS.items() if values.get(key) in endings]
    suffix = endings[0] if endings else ".safetensors"
    return f"{values.get('output_dir', '')}/{values.get('output_name', '')}{suffix}"
