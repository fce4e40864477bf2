"""What becomes of another program's configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_trainer.config.entries import Entry
from lora_trainer.config.setting import UNSET, Key

NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?[eE][+-]?\d+")  # 2e-4, which YAML 1.1 takes for a word


@dataclass
class Converted:
    """`left` has a reason for each key that was not carried over; `notes` are sentences about what was understood in
    another way, `problems` about what the person has to mend."""

    preset: dict[str, Any]
    left: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def entries_of(content: Mapping[str, Any], source: Path) -> dict[str, Entry]:
    """The keys of a file whose places in it are not known, for a trainer's `unfold`."""
    place = f"{source}:"
    return {key: Entry(key, value, place, place, order) for order, (key, value) in enumerate(content.items())}


def carry_over(flat: Mapping[str, Entry], keys: Mapping[str, Key], dropped: Mapping[str, str]) -> Converted:
    """What the trainer with these keys reads; `dropped` has reasons for others."""
    converted = Converted({})
    for name, entry in flat.items():
        key = keys.get(name)
        value = _value(entry, key)
        if value is None:
            continue
        if name in dropped:
            converted.left[name] = dropped[name]
        elif key is None:
            converted.left[name] = "there is no such key here"
        elif key.effect.kind == "none":
            converted.left[name] = key.effect.reason
        else:
            converted.preset[name] = numbers(value)
    return converted


def _value(entry: Entry, key: Key | None) -> Any:
    """null says nothing, but for keys of which it says something else than their absence."""
    spoken = entry.value is None and key is not None and key.setting.blank != UNSET
    return key.setting.blank if spoken and key else entry.value


def numbers(value: Any) -> Any:
    """Words such as 2e-4 as the numbers they are meant to be, at any depth."""
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, list):
        return [numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    return value
