"""What the page needs to know of a trainer's keys: words, groups, defaults, and with what a value is typed."""

from __future__ import annotations

import inspect
import json
from functools import cache
from typing import Any, get_args

from pydantic import SecretStr, TypeAdapter, ValidationError

from lora_trainer.config.explain import effect
from lora_trainer.config.kinds import Arguments, Component, choices
from lora_trainer.config.schema import default_as_written, json_schema
from lora_trainer.config.setting import UNSET, Key, group_name, keys_of
from lora_trainer.config.stages import NAME, OF_THE_WHOLE, STAGES
from lora_trainer.config.trainers import TRAINERS, trainer_named

TRAINED = {
    "lora": "a LoRA",
    "finetune": "a whole model",
    "super_resolution": "an upscaler",
    "gan": "a GAN",
    "restoration": "a restorer",
}
NOTHING: tuple[object, ...] = ("", None, [], {}, Component("").as_json())  # defaults that say nothing
# With what a value is typed, by what its kind holds: a word is a number, a text or whatever else JSON has.
INPUTS: dict[Any, str] = {
    bool: "switch",
    int: "number",
    float: "number",
    str: "text",
    SecretStr: "secret",
    tuple[int, int]: "text",
    tuple[str, ...]: "lines",
    tuple[float, ...]: "numbers",
    tuple[float, float]: "numbers",
    Component: "json",
    tuple[Component, ...]: "json",
    tuple[tuple[str, Component], ...]: "json",
}


@cache
def form(trainer: str) -> dict[str, object]:
    """The keys in their groups, and what else a preset of the trainer may hold. Raises Refusal for an unknown one."""
    entry = trainer_named(trainer)
    keys = keys_of(entry.preset)
    stories = {group_name(owner): inspect.getdoc(owner) or "" for owner in entry.preset.__mro__}
    groups: dict[str, list[dict[str, object]]] = {}
    for key in keys.values():
        groups.setdefault(key.group, []).append(_key(key))
    properties: Any = json_schema(trainer)["properties"]
    others = {name: property_.get("description", "") for name, property_ in properties.items() if name not in keys}
    return {
        "trainer": trainer,
        "trained": TRAINED[trainer],
        "groups": [{"name": name, "about": stories[name], "keys": members} for name, members in groups.items()],
        "others": others,
        "of_the_whole": OF_THE_WHOLE,
        "has_stages": bool(entry.starts_from),
    }


def order_of(trainer: str) -> tuple[str, ...]:
    """The keys in the order in which a preset is written by hand."""
    return (NAME, *keys_of(trainer_named(trainer).preset), STAGES)


def is_default(key: Key, value: object) -> bool:
    """Whether a key with this value asks for what happens without it; an unset one does."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return key.setting.blank is UNSET or key.setting.blank == key.default
    try:
        return bool(_adapter(key.annotation).validate_python(value) == key.default)
    except ValidationError:
        return False


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _key(key: Key) -> dict[str, object]:
    names = list(TRAINERS) if key.name == "trainer" else list(choices(key.annotation))
    default = default_as_written(key)
    return {
        "name": key.name,
        "about": key.setting.about,
        "input": _input(key, names),
        "choices": [name for name in names if name not in key.setting.later],
        "legal": key.legal,
        "default": default,
        "default_shown": "" if key.setting.required or default in NOTHING else _shown(default),
        "required": key.setting.required,
        "example": key.setting.example,
        "effect": effect(key),
        "real": key.effect.kind == "real",
        "may_change": key.setting.may_change,
        "former": list(key.setting.old_names),
    }


def _input(key: Key, names: list[Any]) -> str:
    if names:
        return "suggestions" if "dotted path" in key.legal else "choice"
    if key.annotation == Arguments:
        return "text"
    return INPUTS.get(get_args(key.annotation)[0], "word")


def _shown(value: object) -> str:
    """A value as it is typed: of a list its items alone."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        return ", ".join(map(_shown, value))
    return json.dumps(value, ensure_ascii=False)
