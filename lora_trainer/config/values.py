"""From what a preset writes to what its dataclass holds: former names and values, unset keys, kinds and ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lora_trainer.config.common import CommonPreset
from lora_trainer.config.entries import Entry
from lora_trainer.config.kinds import choices, is_secret, is_text
from lora_trainer.config.problems import first_sentence, shown
from lora_trainer.config.setting import UNSET, Key, keys_of
from lora_trainer.errors import did_you_mean


@dataclass
class Reading:
    """What is known so far about a preset; `entries` are its keys by their present name."""

    path: Path
    trainer: str
    kind: type[CommonPreset]
    entries: dict[str, Entry] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wrong: set[str] = field(default_factory=set)
    idle: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = keys_of(self.kind)

    def refuse(self, entry: Entry, problem: str, *keys: str) -> None:
        """Remember a sentence that `entry` made, and which keys it makes doubtful."""
        self.problems.append((entry.order, problem))
        self.wrong.update(keys)

    def adopt(self, written: Mapping[str, Entry]) -> dict[str, Entry]:
        """Take the keys that this trainer has, under their present names; return the rest."""
        former = {old: key for key in self.keys.values() for old in key.setting.old_names}
        self.entries = {name: entry for name, entry in written.items() if name in self.keys}
        self.notes += [f"{name}: {entry.note}" for name, entry in self.entries.items() if entry.note]
        for name, entry in written.items():
            if name in former and not entry.is_blank:
                self._adopt_former(entry, former[name])
        return {name: entry for name, entry in written.items() if name not in self.keys and name not in former}

    def _adopt_former(self, entry: Entry, key: Key) -> None:
        meanings = key.setting.old_names[entry.key]
        value = _translated(entry.value, meanings) if meanings else entry.value
        if value is UNSET:
            self.refuse(entry, entry.wrong_value(f"found {shown(entry.value)}; write {_either(meanings)}"), key.name)
            return
        present = self.entries.get(key.name)
        if present is not None and not present.is_blank:
            if value not in (present.value, "", False, 0):
                self.notes.append(f"{entry.key}: the former name of {key.name}, which is given too and counts")
            return
        present = Entry(entry.key, value, entry.key_place, entry.value_place, entry.order, entry.text)
        self.entries[key.name] = present
        if not key.is_neutral(value):
            self.notes.append(f"{entry.key}: read as {key.name} {shown(value)}")

    def build(self) -> CommonPreset:
        """The preset, with defaults in place of whatever is wrong; the problems say what is."""
        values: dict[str, object] = {"trainer": self.trainer}
        values |= {key.field: value for key, value in self._values()}
        adapter: TypeAdapter[CommonPreset] = TypeAdapter(self.kind)
        try:
            preset = adapter.validate_python(values)
        except ValidationError as error:
            for fault in error.errors(include_url=False):
                name = str(fault["loc"][0])
                if values.pop(name, UNSET) is not UNSET:
                    self._refuse_value(next(key for key in self.keys.values() if key.field == name), fault)
            preset = adapter.validate_python(values)
        self._require()
        self._note_fractions(preset)
        return preset

    def _values(self) -> Iterator[tuple[Key, object]]:
        for name, entry in self.entries.items():
            key = self.keys[name]
            if name == "trainer" or name in self.wrong:
                continue
            if entry.is_blank:
                if key.setting.blank_note and entry.value is not None:
                    self.notes.append(f"{entry.key}: {key.setting.blank_note}")
                if key.setting.blank is not UNSET:
                    yield key, key.setting.blank
            elif entry.is_placeholder:
                story, example = first_sentence(key.setting.about), key.setting.example or "value"
                text = f"still the placeholder {entry.value}; write it here or add --set {name}={example} ({story})"
                self.refuse(entry, entry.wrong_value(text), name)
            else:
                yield key, self._present_value(key, entry)

    def _present_value(self, key: Key, entry: Entry) -> object:
        if is_text(key.annotation) and entry.text is not None and not isinstance(entry.value, str):
            return entry.text  # --set output_name=2024 is the name 2024
        now = _translated(entry.value, key.setting.old_values)
        if now is UNSET:
            return entry.value
        if not isinstance(entry.value, bool):
            self.notes.append(f"{entry.key}: {shown(entry.value)} is read as {shown(now)}")
        return now

    def _refuse_value(self, key: Key, fault: Any) -> None:
        entry = self.entries[key.name]
        cure = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else ""
        found = "" if is_secret(key.annotation) else f"found {shown(entry.value)}; "
        names = [str(name) for name in choices(key.annotation)]
        hint = did_you_mean(entry.value, names) if isinstance(entry.value, str) else ""
        self.refuse(entry, entry.wrong_value(found + (cure or f"write {key.legal}{hint}")), key.name)

    def _require(self) -> None:
        for key in self.keys.values():
            entry = self.entries.get(key.name)
            if key.setting.required and (entry is None or entry.is_blank):
                cure = f"write it, for example {key.setting.example} ({first_sentence(key.setting.about)})"
                if entry is None:
                    self.problems.append((-1, f"{self.path}:1:1 {key.name}: missing; {cure}"))
                else:
                    self.problems.append((entry.order, entry.wrong_value(f"empty; {cure}")))
                self.wrong.add(key.name)

    def _note_fractions(self, preset: CommonPreset) -> None:
        for name, entry in self.entries.items():
            value = getattr(preset, self.keys[name].field)
            if isinstance(entry.value, str) and "." in entry.value and type(value) is int and name not in self.wrong:
                self.notes.append(f"{name}: {shown(entry.value)} is read as {value}; the kohya_ss GUI makes it 0")


def _translated(value: object, meanings: Mapping[Any, object]) -> object:
    """What a former value means now, whether it is written as itself or as text; UNSET when it is none of them."""
    for former, now in meanings.items():
        same = value == former and isinstance(value, bool) == isinstance(former, bool)
        if same or (isinstance(value, str) and value.strip().casefold() == str(former).casefold()):
            return now
    return UNSET


def _either(meanings: Mapping[object, object]) -> str:
    return " or ".join(shown(former) for former in meanings)
