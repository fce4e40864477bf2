"""A data set as a training reads it, before any picture is opened: its files, captions, rules, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lora_trainer.data.doctor.fit import Fit
from lora_trainer.data.doctor.picture_look import Look, Read

TRAINED, REGULARISATION, MEASURED, PARTNER, MASK = "trained", "regularisation", "measured", "partner", "mask"
SHOWN_AS_PICTURES = (TRAINED, REGULARISATION, MEASURED)
DAMAGED, TOO_SMALL, SIZES, UNEVEN, CAPTION, OTHER = "damaged", "too small", "sizes", "uneven", "caption", "other"
Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Written:
    """The caption of a picture: what is trained, the file that holds it or None, and the name that a file would have.

    `texts` are what the text encoder may read of it.
    """

    text: str
    file: Path | None = None
    expected: str = ""
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One picture file. `spoken` is what the trainer's messages call it, `of` the number of the picture that it is the
    partner or the mask of, `group` the number of its data set."""

    name: str
    spoken: str
    read: Read
    ending: str
    folder: str = ""
    repeats: float = 1
    use: str = TRAINED
    group: int = 0
    caption: Written | None = None
    of: int | None = None


@dataclass(frozen=True)
class Wrong:
    """What a training refuses, in its own words; `kind` is one of those above."""

    kind: str
    sentence: str
    number: int | None = None


@dataclass(frozen=True)
class CaptionRules:
    """How captions are read. `measure` gives the number of tokens of a text and what is beyond `limit` of them.

    `fallback` says what a picture without a caption is trained with, `more` how more of long ones is read.
    """

    measure: Callable[[str], tuple[int, str]]
    limit: int
    separator: str = ","
    extension: str = ".txt"
    fallback: str = ""
    more: str = ""


class Rules(Protocol):
    """What a trainer asks of the sizes and kinds of pictures."""

    def fit(self, entry: Entry, look: Look) -> Fit | None:
        """Where the trainer has buckets."""
        ...

    def wrong(self, entries: Sequence[Entry], looks: Sequence[Look]) -> Sequence[Wrong]: ...


@dataclass(frozen=True)
class Dataset:
    """`batch` is the pictures of a step. `problems` were found without opening a picture; `strays` are files that no
    one reads, with the reason. `rows` are told at the head of the page, `classes` are the labels' with how many
    pictures each has. Squares of `crop_px` are cut out of the pictures, which are enlarged for that where it
    `enlarges`; 0 is none."""

    title: str
    entries: tuple[Entry, ...]
    rules: Rules
    batch: int = 1
    captions: CaptionRules | None = None
    problems: tuple[Wrong, ...] = ()
    strays: Rows = ()
    notes: tuple[str, ...] = ()
    rows: Rows = ()
    word: str = "picture"
    classes: tuple[tuple[str, int], ...] = ()
    crop_px: int = 0
    enlarges: bool = False
