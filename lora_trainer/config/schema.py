"""The JSON Schema of a preset, with which an editor completes, explains and checks the keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from pydantic import SecretStr

from lora_trainer.config import other_models, restoration_sections
from lora_trainer.config.kinds import Arguments, as_json, value_schema
from lora_trainer.config.setting import Key, keys_of
from lora_trainer.config.super_resolution_sections import OTHER_WORDS
from lora_trainer.config.trainers import trainer_named

SCHEMA_FOLDER = Path(__file__).parent / "schema"

STAGES: dict[str, object] = {
    "stages": {
        "type": "array",
        "items": {"type": "object", "required": ["stage"]},
        "description": "Trainings one after the other, each with its own keys beside the preset's.",
    },
}
# What another program's files have beside the keys, by the trainer that reads them
SECTIONS: dict[str, dict[str, object]] = {
    "super_resolution": {
        **{name: {"type": "object"} for name in ("datasets", "train", "path", "val", "logger")},
        **{name: {"type": ["string", "integer"]} for name in OTHER_WORDS if "." not in name},
    },
    "restoration": {
        restoration_sections.SECTION: {"type": "object"},
        **{name: {"type": "string"} for name in restoration_sections.OTHER_WORDS},
    },
}


def json_schema(trainer: str) -> dict[str, object]:
    """The schema (draft 2020-12) of one trainer's presets; it takes every spelling that the GUI writes."""
    entry = trainer_named(trainer)
    properties: dict[str, object] = {}
    for key in keys_of(entry.preset).values():
        properties[key.name] = _property(key)
        for old in key.setting.old_names:
            properties[old] = {"description": f"The former name of {key.name}.", "deprecated": True}
    for name in sorted(other_models.KEYS) if entry.with_gui_keys else ():
        properties[name] = {"description": "For models that lora_trainer does not train.", "deprecated": True}
    if entry.starts_from:
        properties |= STAGES
    properties |= SECTIONS.get(trainer, {})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"lora_trainer preset: {trainer}",
        "type": "object",
        "properties": properties,
        "required": [
            key.name for key in keys_of(entry.preset).values() if key.setting.required and not entry.starts_from
        ],
        "additionalProperties": False,
    }


def schema_file(trainer: str) -> Path:
    """Where the committed schema stands."""
    return SCHEMA_FOLDER / f"{trainer}.schema.json"


def schema_text(trainer: str) -> str:
    """The schema as it is committed."""
    return json.dumps(json_schema(trainer), indent=1, ensure_ascii=False) + "\n"


def default_as_written(key: Key) -> object:
    """The default in the spelling of a preset: a size as "width,height", words as text, a secret as nothing."""
    if get_args(key.annotation)[0] == tuple[int, int]:
        return ",".join(map(str, key.default))  # type: ignore[call-overload]
    if key.annotation == Arguments:
        return " ".join(key.default)  # type: ignore[arg-type]
    return "" if isinstance(key.default, SecretStr) else as_json(key.default)


def _property(key: Key) -> dict[str, object]:
    described = {"title": key.group, "description": description(key), "default": default_as_written(key)}
    values = _without_later(key, value_schema(key.annotation))
    if key.effect.kind == "none":
        described["deprecated"] = True
    return {**described, **values}


def description(key: Key) -> str:
    """What the key does and, where it does nothing, why."""
    if key.effect.kind == "none":
        return f"{key.setting.about} Without effect: {key.effect.reason}."
    return f"{key.setting.about} Not supported yet." if key.effect.kind == "later" else key.setting.about


def _without_later(key: Key, schema: dict[str, object]) -> dict[str, object]:
    """The values with the former ones, and without the choices that are refused so far."""
    former = [*key.setting.old_values, *(str(old) for old in key.setting.old_values if not isinstance(old, str))]
    listed = schema.get("enum")
    if isinstance(listed, list):
        ready = [value for value in listed if value not in key.setting.later]
        former = [old for old in former if key.setting.old_values.get(old) not in key.setting.later]
        return {"enum": [*ready, *former]}
    return {"anyOf": [schema, {"enum": former}]} if former else schema
