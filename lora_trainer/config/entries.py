"""The keys that a preset file and `--set` overrides give, each with its place."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lora_trainer.config.json_source import JsonPath, Source, parse_json
from lora_trainer.config.problems import SHOWN_CHARACTERS, PresetError, shown
from lora_trainer.config.public import without_secrets

SECRET_KEYS = ("wandb_api_key", "huggingface_token")
PLACEHOLDERS = ("...", "\u2026")
_AFTER_THE_FILE = 10**9


@dataclass(frozen=True)
class Entry:
    """One key as it is written; `text` is what stood after the = of an override, None for a key of the file.

    `note` is what a trainer's `unfold` has to tell of it.
    """

    key: str
    value: object
    key_place: str
    value_place: str
    order: int
    text: str | None = None
    source: Source | None = None
    path: JsonPath = ()
    note: str = ""

    @property
    def is_blank(self) -> bool:
        """The GUI writes an empty text, and hand-made presets null, for what is not set."""
        return self.value is None or (isinstance(self.value, str) and not self.value.strip())

    @property
    def is_placeholder(self) -> bool:
        return isinstance(self.value, str) and self.value.strip() in PLACEHOLDERS

    def wrong_key(self, text: str) -> str:
        """The sentence of a problem with the key itself."""
        return self._sentence(self.key_place, self.key, text)

    def wrong_value(self, text: str, key: str = "") -> str:
        """The sentence of a problem with the value, or of one that another `key` has with it."""
        return self._sentence(self.value_place, key or self.key, text)

    def inside(self, *path: str | int) -> Entry:
        """The entry of a key, or the item of a list, within this one's value. Raises KeyError when there is none."""
        value: Any = self.value
        for step in path:
            value = value[step]
        key = ".".join((self.key, *map(str, path)))
        deep = (*self.path, *path)
        if self.source is None or deep not in self.source.values:
            return replace(self, key=key, value=value)
        keyed = deep in self.source.keys
        place = self.source.value_place(deep)
        return Entry(
            key=key,
            value=value,
            key_place=self.source.key_place(deep) if keyed else place,
            value_place=place,
            order=self.source.keys[deep] if keyed else self.source.values[deep],
            source=self.source,
            path=deep,
        )

    def _sentence(self, place: str, key: str, text: str) -> str:
        plain = key.isprintable() and key == key.strip() and 0 < len(key) <= SHOWN_CHARACTERS
        name = key if plain else shown(key)
        if self.text is None:
            return f"{place} {name}: {text}"
        return f"{place}: {text}" if key == self.key else f"{place}: {name}: {text}"


def collect(source: Source, overrides: Sequence[str] = ()) -> dict[str, Entry]:
    """Every key that is given, in the order of the file; an override replaces the file's entry or adds one."""
    if not isinstance(source.value, dict):
        kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
        kind = kinds.get(type(source.value), "a number")
        raise PresetError(f'{source.value_place(())} found {kind}; a preset is an object: {{ "key": value, ... }}')
    entries = {key: _from_file(source, (key,), value) for key, value in source.value.items()}
    problems = []
    for number, override in enumerate(overrides):
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            problems.append(f"--set {_masked(key.strip(), override)}: write it as --set key=value")
            continue
        _override(entries, _from_override(key.strip(), text, _AFTER_THE_FILE + number))
    if problems:
        raise PresetError(*problems)
    return entries


def _from_file(source: Source, path: JsonPath, value: object) -> Entry:
    places = source.key_place(path), source.value_place(path)
    return Entry(str(path[-1]), value, *places, source.keys[path], source=source, path=path)


def _override(entries: dict[str, Entry], new: Entry) -> None:
    """Replace or add; `optim_g.lr` reaches into an object that the file gives."""
    first, *deeper = new.key.split(".")
    if not deeper or first not in entries or not isinstance(entries[first].value, dict):
        entries[new.key] = new
        return
    value = copy.deepcopy(entries[first].value)
    inner: Any = value
    for step in deeper[:-1]:
        inner = inner.setdefault(step, {}) if isinstance(inner, dict) else {}
    if isinstance(inner, dict):
        inner[deeper[-1]] = new.value
    entries[first] = replace(entries[first], value=value)


def _from_override(key: str, text: str, order: int) -> Entry:
    place = f"--set {key}={_masked(key, text)}"
    return Entry(key, _json_or_text(text), place, place, order, text)


def _json_or_text(text: str) -> object:
    try:
        return parse_json("--set", text).value
    except PresetError:
        return text


def _masked(key: str, text: str) -> str:
    """The text, or stars where it may be a secret, a mistyped key of one included."""
    if difflib.get_close_matches(key.casefold(), SECRET_KEYS, n=1, cutoff=0.75):
        return "***"
    text = without_secrets(text)
    return text if text.isprintable() and len(text) <= 80 else shown(text)
