"""What a rule across keys has to say: an error, a note, or a key without effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """`keys` are all the keys that the sentence is about; the first one given in the preset gets its place."""

    level: Literal["error", "note", "inert"]
    keys: tuple[str, ...]
    text: str


Rule = Callable[[Any], Iterator[Finding]]


def error(text: str, *keys: str) -> Finding:
    """A contradiction that cannot be honoured."""
    return Finding("error", keys, text)


def note(text: str, *keys: str) -> Finding:
    """Something that the person would want to know and that is honoured."""
    return Finding("note", keys, text)


def inert(text: str, *keys: str) -> Finding:
    """Each of these keys, where it is given, does nothing in this combination."""
    return Finding("inert", keys, text)
