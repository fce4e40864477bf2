"""What files beside pictures say about them: multiply, dropout, mirroring, tags, batches, ratings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.config.yaml_file import read_yaml
from lora_trainer.data.everydream.captions import Tag
from lora_trainer.errors import Refusal, did_you_mean

LOCAL, GLOBAL = ("local.yaml", "local.yml"), ("global.yaml", "global.yml")
TRUE, FALSE = ("", "true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class ItemSettings:
    """How one picture is used; None leaves it to the preset.

    ``multiply`` is how often an epoch has it, a fraction included. Pictures with the same ``batch_id`` share batches.
    ``loss_scale`` multiplies its loss. Higher ``rating`` means drawn rather, in a rated data set.
    """

    multiply: float = 1.0
    cond_dropout: float | None = None
    flip_p: float | None = None
    shuffle_tags: bool | None = None
    loss_scale: float = 1.0
    batch_id: str = ""
    rating: float = 1.0


def _number(value: Any, most: float = math.inf) -> float:
    if isinstance(value, bool):
        raise ValueError
    number = float(value)
    if not (0 <= number <= most and math.isfinite(number)):
        raise ValueError
    return number


def _share(value: Any) -> float:
    return _number(value, 1.0)


def _above_zero(value: Any) -> float:
    if _number(value) == 0:
        raise ValueError
    return _number(value)


def _length(value: Any) -> int:
    if int(value) != float(value) or int(value) < 1:
        raise ValueError
    return int(value)


def _switch(value: Any) -> bool:
    word = str(value).strip().casefold()
    if word in TRUE + FALSE:
        return word in TRUE
    raise ValueError


def _text(value: Any) -> str:
    if isinstance(value, (dict, list)) or not str(value).strip():
        raise ValueError
    return " ".join(str(value).split())


def _tags(value: Any) -> tuple[Tag, ...]:
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list):
        raise ValueError
    return tuple(_tag(item) for item in listed)


def _tag(item: Any) -> Tag:
    if not isinstance(item, dict):
        return Tag(_text(item))
    if not item.keys() <= {"tag", "weight"}:
        raise ValueError
    return Tag(_text(item.get("tag", "")), _number(item.get("weight", 1.0)))


# key -> how it is read, and what it may be
KEYS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "main_prompt": (_text, "text"),
    "caption": (_text, "text"),
    "tags": (_tags, "a list of texts or of  tag: text  with a  weight: number"),
    "max_caption_length": (_length, "a number of characters"),
    "rating": (_above_zero, "a number above 0"),
    "batch_id": (_text, "text"),
    "multiply": (_number, "a number from 0 upwards"),
    "cond_dropout": (_share, "a number from 0 to 1"),
    "flip_p": (_share, "a number from 0 to 1"),
    "shuffle_tags": (_switch, "true or false"),
    "loss_scale": (_number, "a number from 0 upwards"),
}
OF_A_FOLDER = ("multiply", "cond_dropout", "flip_p", "batch_id", "loss_scale", "shuffle_tags")  # a .txt file each

Given = Mapping[str, Any]  # the keys of KEYS that a file gives


def read_settings(values: Mapping[str, Any], place: str, problems: list[str]) -> dict[str, Any]:
    """The keys of a YAML file or an item of a JSON list. What is wrong is added to ``problems``, with the ``place``."""
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in KEYS:
            problems.append(f"{place}: {key}: unknown key{did_you_mean(key, KEYS)}")
            continue
        if value is None:
            continue
        read, legal = KEYS[key]
        try:
            given[key] = read(value)
        except (TypeError, ValueError, OverflowError):
            problems.append(f"{place}: {key}: found {value!r}; write {legal}")
    return given


def read_folder_settings(folder: Path, problems: list[str]) -> dict[str, Any]:
    """What the folder says for the pictures in it: its text files, and over them its local.yaml."""
    given: dict[str, Any] = {}
    for key in OF_A_FOLDER:
        path = folder / f"{key}.txt"
        if path.is_file():
            try:
                text = path.read_text(encoding="utf-8-sig").strip()
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{path}: cannot be read ({error})")
                continue
            given |= read_settings({key: text}, str(path), problems)
    return {**given, **read_yaml_settings(folder, LOCAL, problems)}


def read_yaml_settings(folder: Path, names: tuple[str, ...], problems: list[str]) -> dict[str, Any]:
    """The first of these files in the folder."""
    for path in (folder / name for name in names):
        if path.is_file():
            try:
                return read_settings(read_yaml(path), str(path), problems)
            except Refusal as refusal:
                problems.extend(refusal.problems)
    return {}


def item_settings(given: Given) -> ItemSettings:
    return ItemSettings(**{key: value for key, value in given.items() if key in ItemSettings.__dataclass_fields__})
