"""What there is to say about a preset's text, each thing at its key: the same words as on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lora_trainer.config.entries import Entry, collect
from lora_trainer.config.json_source import JsonPath, Source, parse_json
from lora_trainer.config.kinds import is_secret
from lora_trainer.config.problems import PresetError, shown
from lora_trainer.config.reader import Loaded, examine, trainer_of
from lora_trainer.config.setting import keys_of
from lora_trainer.config.stages import NAME, STAGES
from lora_trainer.config.trainers import DEFAULT_TRAINER, TRAINERS
from lora_trainer.editor.form import is_default
from lora_trainer.errors import nearest

SHARED = -1  # the number of the keys that stand outside of all stages
_PLACE = re.compile(r":(\d+):(\d+) ")
_KEY = re.compile(r"[^\s:]+(?=: )|[^\s:]+(?= --)")


@dataclass(frozen=True)
class Problem:
    """A sentence of the command line, without the file's name; `line` is 0 for what is wrong in another file."""

    text: str
    line: int = 0
    key: str = ""
    stage: int = SHARED


@dataclass(frozen=True)
class Remark:
    """What is to be known of a key: a note, or with `inert` why it has no effect."""

    text: str
    key: str
    stage: int
    inert: bool = False


def answer(path: Path, text: str) -> dict[str, object]:
    """Everything that the page shows of a text; with `broken` there are only problems, since it is no JSON object."""
    try:
        source = parse_json(str(path), text)
        written = collect(source)
    except PresetError as error:
        return {"broken": True, "problems": [asdict(_unplaced(path, problem)) for problem in error.problems]}
    trainer = _meant(written)
    stages: tuple[Loaded, ...] = ()
    try:
        stages, problems = examine(path, source)
    except PresetError as error:
        problems = error.problems
    return {
        "broken": False,
        "trainer": trainer,
        "scopes": list(_scopes(source, trainer)),
        "problems": [asdict(_placed(path, source, problem)) for problem in problems],
        "remarks": [asdict(remark) for number, loaded in _numbered(stages) for remark in _remarks(number, loaded)],
        "elsewhere": [each for number, loaded in _numbered(stages) for each in _elsewhere(source, number, loaded)],
        "unknown": _unknown(source, trainer, problems),
    }


def trainer_meant(path: Path, text: str) -> str:
    """Whose keys the page shows. Raises PresetError for what is no JSON object."""
    return _meant(collect(parse_json(str(path), text)))


def _meant(written: Mapping[str, Entry]) -> str:
    try:
        return trainer_of(written)
    except PresetError:
        return nearest(str(written["trainer"].value), TRAINERS) or DEFAULT_TRAINER


def _numbered(stages: tuple[Loaded, ...]) -> list[tuple[int, Loaded]]:
    return [(number if loaded.stage else SHARED, loaded) for number, loaded in enumerate(stages)]


def _unplaced(path: Path, problem: str) -> Problem:
    rest = problem.removeprefix(str(path))
    place = _PLACE.match(rest)
    return Problem(rest[place.end() :], int(place[1])) if place else Problem(problem)


def _placed(path: Path, source: Source, problem: str) -> Problem:
    """The problem at the key whose text it names, or for the place of the whole file at the key that it begins with."""
    rest = problem.removeprefix(str(path))
    place = _PLACE.match(rest)
    if place is None or rest == problem:
        return Problem(problem)
    line, column = int(place[1]), int(place[2])
    said = rest[place.end() :]
    where = path_at(source, line, column)
    if len(where) > 2 and where[0] == STAGES:
        return Problem(said, line, str(where[2]), int(where[1]))
    if where:
        return Problem(said, line, str(where[0]))
    named = _KEY.match(said)
    return Problem(said, line, named[0] if named else "")


def path_at(source: Source, line: int, column: int) -> JsonPath:
    """What stands at a place, as deep as it goes."""
    start = 0
    for _ in range(line - 1):
        start = source.text.index("\n", start) + 1
    offset = start + column - 1
    inside = [path for path, end in source.ends.items() if source.keys.get(path, source.values[path]) <= offset < end]
    return max(inside, key=len, default=())


def _scopes(source: Source, trainer: str) -> Iterator[dict[str, object]]:
    """The keys of the whole preset as they are written, and those of each stage."""
    yield {"stage": SHARED, "name": "", "keys": _written(source, (), trainer)}
    listed = source.value.get(STAGES) if isinstance(source.value, dict) else None
    for number, stage in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(stage, dict):
            name = str(stage.get(NAME, number + 1))
            yield {"stage": number, "name": name, "keys": _written(source, (STAGES, number), trainer)}


def _written(source: Source, parent: JsonPath, trainer: str) -> list[dict[str, object]]:
    keys = keys_of(TRAINERS[trainer].preset)
    value = source.value
    for step in parent:
        value = value[step]  # type: ignore[index]
    found: list[dict[str, object]] = []
    for name, each in value.items():  # type: ignore[attr-defined]
        path = (*parent, name)
        raw = source.text[source.values[path] : source.ends[path]]
        default = name in keys and not keys[name].setting.required and is_default(keys[name], each)
        found.append({"name": name, "raw": raw, "default": default})
    return found


def _remarks(number: int, loaded: Loaded) -> Iterator[Remark]:
    for note in loaded.notes:
        named = _KEY.match(note)
        yield Remark(note, named[0] if named else "", number)
    for key, reason in loaded.inert.items():
        yield Remark(f"{key}: without effect: {reason}", key.split(" ")[0], number, inert=True)


def _elsewhere(source: Source, number: int, loaded: Loaded) -> Iterator[dict[str, object]]:
    """The keys that get their value from another place than their own: a section, an argument, a former name."""
    keys = keys_of(type(loaded.preset))
    for name, entry in loaded.entries.items():
        ours = entry.source is source
        if ours and entry.path in ((name,), (STAGES, number, name)):
            continue
        if ours and entry.path == (STAGES, number, NAME):
            by = "the stage before"
        else:
            by = ".".join(map(str, entry.path)) if ours else entry.key
        if entry.source is not None and not ours:
            by = f"{by} in {Path(entry.source.name).name}"
        value = "***" if is_secret(keys[name].annotation) else shown(entry.value)
        yield {"key": name, "stage": number, "by": by, "value": value}


def _unknown(source: Source, trainer: str, problems: tuple[str, ...]) -> dict[str, str]:
    """Each key that nobody knows, with the one that was probably meant, or nothing."""
    names = {str(path[-1]) for path in source.keys if len(path) == 1 or (len(path) == 3 and path[0] == STAGES)}
    told = {name for name in names if any(f" {name}: unknown key" in problem for problem in problems)}
    return {name: nearest(name, keys_of(TRAINERS[trainer].preset)) or "" for name in sorted(told)}
