"""What a run knows of itself when it begins, as a file beside status.json: what is trained, on what, how to use it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_trainer import atomic

Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Counts:
    """How often something occurs, for bars: pictures in each bucket, tags of the captions."""

    title: str
    rows: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI, with what to say below it."""

    uri: str
    caption: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Material:
    """What a trainer tells of its job. In `how_to_use`, which is rows of a program and what to do there, `{file}`
    stands for the name of the result and `{stem}` for the same without its ending."""

    title: str
    rows: Rows = ()
    counts: tuple[Counts, ...] = ()
    thumbnails: tuple[Thumbnail, ...] = ()
    how_to_use: Rows = ()


@dataclass(frozen=True)
class PresetKey:
    """A key whose value is not its default, as text."""

    name: str
    group: str
    value: str
    default: str
    about: str


@dataclass(frozen=True)
class RunFacts:
    """`values` are those that may be shown to others. `higher_is_better` is by the names in metrics.jsonl, the most
    telling one first."""

    output_name: str
    trainer: str
    material: Material
    about: str = ""
    command: str = ""
    memory_advice: str = ""
    changed: tuple[PresetKey, ...] = ()
    inert: Rows = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)
    versions: Rows = ()

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(file, json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n")


def read_facts(file: Path) -> RunFacts | None:
    """None where there is no such file, or one that another version wrote."""
    try:
        return _facts(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _facts(content: dict[str, Any]) -> RunFacts:
    told = content.pop("material")
    material = Material(
        told["title"],
        _rows(told["rows"]),
        tuple(Counts(each["title"], tuple((name, int(n)) for name, n in each["rows"])) for each in told["counts"]),
        tuple(Thumbnail(**each) for each in told["thumbnails"]),
        _rows(told["how_to_use"]),
    )
    changed = tuple(PresetKey(**each) for each in content.pop("changed"))
    inert, versions = _rows(content.pop("inert")), _rows(content.pop("versions"))
    return RunFacts(material=material, changed=changed, inert=inert, versions=versions, **content)


def _rows(rows: list[list[str]]) -> Rows:
    return tuple((str(name), str(value)) for name, value in rows)
