"""A preset file and `--set` overrides become one frozen preset, or a list of everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lora_trainer.config import additional_parameters, other_models
from lora_trainer.config.common import CommonPreset
from lora_trainer.config.entries import Entry, collect
from lora_trainer.config.findings import Finding
from lora_trainer.config.json_source import Source, read_json
from lora_trainer.config.kinds import as_json, is_secret
from lora_trainer.config.problems import PresetError, one_of, shown
from lora_trainer.config.setting import Key, keys_of
from lora_trainer.config.stages import Stage, split_stages
from lora_trainer.config.trainers import DEFAULT_TRAINER, TRAINERS
from lora_trainer.config.values import Reading
from lora_trainer.errors import did_you_mean


@dataclass(frozen=True)
class Loaded:
    """A preset with what there is to say about it.

    `given` holds the keys of the preset, under their present names, as they were written and without secrets; `notes`
    are sentences about what was understood in another way than it was written; `inert` says for each key that does
    nothing why that is. `entries` know the places of keys, for what can be checked only later. `stage` is the name of
    this part of a preset with stages, and `follows` whether it starts from what the part before has yet to make.
    """

    preset: CommonPreset
    path: Path
    given: dict[str, object]
    notes: tuple[str, ...]
    inert: dict[str, str]
    entries: Mapping[str, Entry] = field(default_factory=dict, repr=False)  # may hold secrets
    stage: str = ""
    follows: bool = False

    def wrong(self, text: str, key: str, *inside: str | int, as_key: bool = False) -> str:
        """The sentence of a problem with a key's value, or with what is `inside` it, at its place in the file."""
        entry = self.entries.get(key)
        if entry is None:
            return f"{self.path}:1:1 {'.'.join((key, *map(str, inside)))}: {text}"
        try:
            entry = entry.inside(*inside)
        except (KeyError, IndexError, TypeError):
            as_key = False
        return entry.wrong_key(text) if as_key else entry.wrong_value(text)

    def steps_fingerprint(self) -> dict[str, object]:
        """The values, ready for JSON, that may not change between a run and its continuation."""
        return {
            key.name: as_json(getattr(self.preset, key.field))
            for key in keys_of(type(self.preset)).values()
            if key.effect.kind == "real" and not key.setting.may_change
        }


def load_preset(path: Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read a preset; each override is `key=value` and wins over the file. Raises PresetError with every problem.

    Of a preset with stages, this is the first one; `load_stages` gives all.
    """
    return load_stages(path, overrides)[0]


def load_stages(path: Path, overrides: Sequence[str] = ()) -> tuple[Loaded, ...]:
    """The stages of a preset in their order; a preset without `stages` is one."""
    stages, problems = examine(path, read_json(path), overrides)
    if problems:
        raise PresetError(*problems)
    return stages


def examine(path: Path, source: Source, overrides: Sequence[str] = ()) -> tuple[tuple[Loaded, ...], tuple[str, ...]]:
    """The stages that the text gives, with defaults in place of what is wrong, and everything that is wrong.

    Raises PresetError for what leaves nothing to look at, such as a trainer that does not exist.
    """
    written = collect(source, overrides)
    name = trainer_of(written)
    looks = [_look(path, name, stage) for stage in split_stages(path, written, TRAINERS[name])]
    problems = dict.fromkeys(problem for _, found in looks for problem in found)  # stages share keys, and their faults
    return tuple(loaded for loaded, _ in looks), tuple(problems)


def _look(path: Path, name: str, stage: Stage) -> tuple[Loaded, tuple[str, ...]]:
    trainer = TRAINERS[name]
    reading = Reading(path, name, trainer.preset)
    rest = reading.adopt(_with_parameters(reading, stage.entries) if trainer.with_gui_keys else stage.entries)
    leftovers = _set_other_models_apart(reading, rest) if trainer.with_gui_keys else {}
    for entry in rest.values():
        reading.refuse(entry, entry.wrong_key(f"unknown key{did_you_mean(entry.key, reading.keys)}"))
    preset = reading.build()
    inert = {**_without_effect(reading, preset), **leftovers, **reading.idle}
    for rule in trainer.rules:
        for finding in rule(preset):
            _apply(reading, finding, inert)
    problems = tuple(text for _, text in sorted(reading.problems, key=lambda problem: problem[0]))
    return Loaded(
        preset, path, _given(reading), tuple(reading.notes), inert, reading.entries, stage.name, stage.follows
    ), problems


def trainer_of(written: Mapping[str, Entry]) -> str:
    """The trainer that a preset is for: the one it names, or the one whose keys it has. Raises PresetError."""
    entry = written.get("trainer")
    if entry is None or entry.is_blank:
        told = [name for name, row in TRAINERS.items() if row.told_by and written.keys() >= set(row.told_by)]
        return told[0] if told else DEFAULT_TRAINER
    name = str(entry.value).strip().casefold()
    if name in TRAINERS:
        return name
    cure = f"write {one_of(TRAINERS)}{did_you_mean(name, TRAINERS)}"
    raise PresetError(entry.wrong_value(f"found {shown(entry.value)}; {cure}"))


def _with_parameters(reading: Reading, written: Mapping[str, Entry]) -> dict[str, Entry]:
    """The entries with those that stand in additional_parameters."""
    spread = additional_parameters.spread_parameters(written)
    for problem in spread.problems:
        reading.refuse(written[additional_parameters.KEY], problem)
    reading.notes += spread.notes
    reading.idle |= spread.idle
    return spread.entries


def _set_other_models_apart(reading: Reading, rest: dict[str, Entry]) -> dict[str, str]:
    """Refuse a preset that is for another family of models; return what is to be said of the GUI's leftovers."""
    entries = {name: rest.pop(name) for name in list(rest) if name in other_models.KEYS}
    if "LoRA_type" in reading.entries:
        entries["LoRA_type"] = reading.entries["LoRA_type"]
    values = {name: entry.value for name, entry in entries.items()}
    asking = {name: family for name in values if (family := other_models.family_asked_for(name, values))}
    if asking:
        first = min((entries[name] for name in asking), key=lambda entry: entry.order)
        reading.wrong.update(asking)
        families = " and ".join(dict.fromkeys(asking.values()))
        text = f"for {families} models, which lora_trainer does not train; it trains SD 1.x, SD 2.x and SDXL"
        also = [name for name in asking if entries[name] is not first]
        reading.refuse(first, first.wrong_key(text + (f"; so are {', '.join(also)}" if also else "")))
        return {}
    return other_models.leftovers({name: value for name, value in values.items() if name in other_models.KEYS})


def _without_effect(reading: Reading, preset: CommonPreset) -> dict[str, str]:
    """Why each key that asks for something does nothing; what is not supported yet is refused."""
    inert: dict[str, str] = {}
    for name, entry in reading.entries.items():
        key = reading.keys[name]
        value = getattr(preset, key.field)
        if name in reading.wrong or key.is_neutral(value):
            continue
        if key.effect.kind == "later":
            text = (
                f"{_shown(key, value)} is not supported yet; remove the key or set it to {shown(as_json(key.default))}"
            )
            reading.refuse(entry, entry.wrong_value(text))
        elif value in key.setting.later:
            reading.refuse(entry, entry.wrong_value(f"{value} is not supported yet; write {key.legal}"))
        elif key.effect.kind == "none":
            inert[name] = key.effect.reason
    return {name: reason for name, reason in inert.items() if reading.keys[name].effect.told_with not in inert}


def _shown(key: Key, value: object) -> str:
    return "***" if is_secret(key.annotation) else shown(as_json(value))


def _apply(reading: Reading, finding: Finding, inert: dict[str, str]) -> None:
    """Turn what a rule found into a problem, a note or reasons, unless one of its keys is already wrong."""
    if reading.wrong.intersection(finding.keys):
        return
    given = [name for name in finding.keys if name in reading.entries and not reading.entries[name].is_blank]
    if finding.level == "inert":
        inert.update({name: finding.text for name in given if name not in inert})
    elif finding.level == "note":
        reading.notes.append(f"{finding.keys[0]}: {finding.text}")
    elif given:
        entry = reading.entries[given[0]]
        name = "" if given[0] == finding.keys[0] else finding.keys[0]
        reading.problems.append((entry.order, entry.wrong_value(finding.text, name)))
    else:
        reading.problems.append((-1, f"{reading.path}:1:1 {finding.keys[0]}: {finding.text}"))


def _given(reading: Reading) -> dict[str, object]:
    return {
        name: "***" if is_secret(reading.keys[name].annotation) and not entry.is_blank else entry.value
        for name, entry in reading.entries.items()
    }
