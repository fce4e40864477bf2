"""Changing one value in JSON text, with every other character left as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from lora_trainer.config.json_source import JsonPath, Source, parse_json

INDENT = "  "
_INDENTED = re.compile(r"\n([ \t]+)\S")


def put(text: str, path: JsonPath, written: str, order: Sequence[str] = ()) -> str:
    """The text with the JSON `written` as the value at the path; a new key stands where `order` has it.

    Raises PresetError when either is no JSON, and KeyError when there is nothing to put a key into.
    """
    parse_json("the value", written)
    written = written.strip()
    source = parse_json("the preset", text)
    if path in source.values:
        return text[: source.values[path]] + written + text[source.ends[path] :]
    if path[:-1] not in source.values or text[source.values[path[:-1]]] != "{":
        raise KeyError(path)
    member = json.dumps(path[-1], ensure_ascii=False)
    present = _keys_of(source, path[:-1])
    if not present:
        return _put_first_of_all(source, path[:-1], f"{member}: {written}")
    before = key_before(present, str(path[-1]), order)
    neighbour = (*path[:-1], present[0] if before is None else before)
    member += _colon(source, neighbour) + written
    if before is None:
        start = source.keys[neighbour]
        return f"{text[:start]}{member},{_blanks_between(source, path[:-1], neighbour)}{text[start:]}"
    end = source.ends[neighbour]
    return f"{text[:end]},{_blanks_between(source, path[:-1], neighbour)}{member}{text[end:]}"


def remove(text: str, path: JsonPath) -> str:
    """The text without a key and its value, or without an item of a list. Raises KeyError when it is not there."""
    source = parse_json("the preset", text)
    if path not in source.values:
        raise KeyError(path)
    siblings = _members_of(source, path[:-1])
    at = siblings.index(path)
    start, end = _start(source, path), source.ends[path]
    if at > 0:
        return text[: source.ends[siblings[at - 1]]] + text[end:]
    if len(siblings) > 1:
        return text[:start] + text[_start(source, siblings[1]) :]
    return text[: source.values[path[:-1]] + 1] + text[source.ends[path[:-1]] - 1 :]


def rename(text: str, path: JsonPath, key: str) -> str:
    """The text with another name for a key, whose value stays. Raises KeyError when it is not there, or the name is."""
    source = parse_json("the preset", text)
    if (*path[:-1], key) in source.keys:
        raise KeyError(key)
    start = source.keys[path]
    end = start + len(_string_at(text, start))
    return text[:start] + json.dumps(key, ensure_ascii=False) + text[end:]


def append(text: str, path: JsonPath, written: str) -> str:
    """The text with one more item at the end of a list that has some. Raises KeyError when there is none."""
    source = parse_json("the preset", text)
    parse_json("the value", written)
    items = _members_of(source, path)
    if not items:
        raise KeyError(path)
    end = source.ends[items[-1]]
    return f"{text[:end]},{_blanks_between(source, path, items[-1])}{written.strip()}{text[end:]}"


def key_before(present: Sequence[str], key: str, order: Sequence[str]) -> str | None:
    """After which key a new one goes: by the alphabet where all keys are in it, as the GUI writes them, else by order.

    None is before all others.
    """
    if len(present) > 2 and list(present) == sorted(present):
        earlier = [name for name in present if name < key]
        return earlier[-1] if earlier else None
    places = {name: place for place, name in enumerate(order)}
    if key not in places:
        return present[-1]
    earlier = [name for name in present if places.get(name, len(places)) < places[key]]
    return max(earlier, key=lambda name: places[name]) if earlier else None


def _keys_of(source: Source, path: JsonPath) -> list[str]:
    return [str(member[-1]) for member in _members_of(source, path)]


def _members_of(source: Source, path: JsonPath) -> list[JsonPath]:
    """The paths of what stands directly in an object or a list, in its order."""
    depth = len(path) + 1
    return sorted(
        (each for each in source.values if len(each) == depth and each[:-1] == path), key=source.values.__getitem__
    )


def _start(source: Source, path: JsonPath) -> int:
    return source.keys.get(path, source.values[path])


def _colon(source: Source, neighbour: JsonPath) -> str:
    """What stands between a neighbour's name and its value."""
    start = source.keys[neighbour]
    between = source.text[start + len(_string_at(source.text, start)) : source.values[neighbour]]
    return between if "\n" not in between else ": "


def _blanks_between(source: Source, parent: JsonPath, neighbour: JsonPath) -> str:
    """The blanks before a neighbour, which go before a new member as well."""
    members = _members_of(source, parent)
    at = members.index(neighbour)
    start = _start(source, neighbour)
    after = source.ends[members[at - 1]] if at else source.values[parent]
    blanks = source.text[after + 1 : start].lstrip(",") if at else source.text[after + 1 : start]
    blanks = blanks if not blanks.strip() else "\n"
    if "\n" not in blanks:
        return blanks if at else " "
    return ("\r\n" if "\r\n" in blanks else "\n") + blanks.rpartition("\n")[2]


def _put_first_of_all(source: Source, path: JsonPath, member: str) -> str:
    """Into an object that has nothing yet: on a line of its own, indented as the text is."""
    text, start, end = source.text, source.values[path], source.ends[path]
    newline = "\r\n" if "\r\n" in text else "\n"
    line = text[text.rfind("\n", 0, start) + 1 : start]
    base = line[: len(line) - len(line.lstrip(" \t"))]
    indented = _INDENTED.search(text)
    unit = indented.group(1) if indented else INDENT
    return f"{text[: start + 1]}{newline}{base}{unit}{member}{newline}{base}{text[end - 1 :]}"


def _string_at(text: str, start: int) -> str:
    _, end = json.JSONDecoder().raw_decode(text, start)
    return text[start:end]
