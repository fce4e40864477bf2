"""HYPIR's sections (`data_config` and what is in it) and its words as the flat keys of a restoration preset.

A preset may be written flat, or as HYPIR's YAML files are, or as a mixture; the places in messages stay those of what
was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath

from pydantic import TypeAdapter, ValidationError

from lora_trainer.config.entries import Entry
from lora_trainer.config.kinds import FileName
from lora_trainer.config.problems import PresetError, one_of, shown

SECTION = "data_config"
TRAINED, HELD_OUT = f"{SECTION}.train.", f"{SECTION}.val."
OTHER_WORDS = {  # HYPIR's words for keys that every trainer has
    "report_to": "log_with",
    "swanlab_project": "log_tracker_name",
}
HELD_OUT_WORDS = {
    "val_dir": "val_dir",
    "degradation_types": "degradation_types",
    "num_samples_per_type": "num_samples_per_type",
    "batch_size": "val_batch_size",
}
TRAINED_WORDS = {"second_blur_prob": "blur_prob2", "image_path_key": "gt_key"}  # all else keeps its name
SILENT = {  # how HYPIR's classes are wired up, which says nothing about a training
    f"{TRAINED}dataset.params.file_backend_cfg",
    f"{TRAINED}batch_transform.params.hq_key",
    f"{TRAINED}batch_transform.params.extra_keys",
}
TARGETS = {  # HYPIR's classes, and whether their bad pictures are made from good ones
    "PairedParquetDataset": False,
    "IdentityBatchTransform": False,
    "RealESRGANDataset": True,
    "RealESRGANBatchTransform": True,
}
DEGRADES = "high_order_degradation"
USUAL_LOGS = ("logs", "./logs", ".\\logs")


def unfold_restoration(written: Mapping[str, Entry]) -> dict[str, Entry]:
    """Flat keys for everything; a key that stands at the top as well wins over its section's.

    Raises PresetError for a class of HYPIR's that is not known.
    """
    flat: dict[str, Entry] = {}
    section = written.get(SECTION)
    if section is not None:
        if not isinstance(section.value, dict):
            text = f"found {shown(section.value)}; write an object with train and val, or the keys in it at the top"
            raise PresetError(section.wrong_value(text))
        flat |= {entry.key: entry for entry in _leaves(section)}
        written = {key: entry for key, entry in written.items() if key != SECTION}
    for key, entry in written.items():
        name = OTHER_WORDS.get(key, key)
        if name == key or name not in written:  # where both are given, ours counts
            flat[name] = replace(entry, key=name)
    logs = flat.get("logging_dir")
    if logs is not None and logs.value in USUAL_LOGS:
        del flat["logging_dir"]
    _name_the_run(flat)
    return flat


def _leaves(section: Entry) -> Iterator[Entry]:
    """What is within a section, at any depth, under its flat key."""
    if not isinstance(section.value, dict):
        return
    for name in map(str, section.value):
        entry = section.inside(name)
        if entry.key in SILENT:
            continue
        if name == "target":
            yield from _target(entry)
        elif entry.key.startswith(HELD_OUT) and name in HELD_OUT_WORDS:
            yield replace(entry, key=HELD_OUT_WORDS[name])
        elif isinstance(entry.value, dict):
            yield from _leaves(entry)
        elif entry.key.startswith(TRAINED):
            yield replace(entry, key=TRAINED_WORDS.get(name, name))
        elif not entry.is_blank:
            yield entry  # under its long name, which no trainer has: an unknown key


def _target(entry: Entry) -> Iterator[Entry]:
    """A class's name says whether pictures are degraded on the fly."""
    name = str(entry.value).rpartition(".")[2]
    if name not in TARGETS:
        raise PresetError(entry.wrong_value(f"found {shown(entry.value)}; write {one_of(TARGETS)}"))
    if TARGETS[name]:
        yield replace(entry, key=DEGRADES, value=True)


def _name_the_run(flat: dict[str, Entry]) -> None:
    """The preset file's name is the run's, as with HYPIR; a stage of a preset has no output_dir and no such name."""
    folder, named = flat.get("output_dir"), flat.get("output_name")
    files = [entry.source.name for entry in flat.values() if entry.source is not None]
    if folder is None or not files or (named is not None and not named.is_blank):
        return
    stem = PurePosixPath(PureWindowsPath(files[0]).name).stem
    try:
        TypeAdapter(FileName).validate_python(stem)
    except ValidationError:
        return
    flat["output_name"] = replace(folder, key="output_name", value=stem, text=None)
