"""The pictures that a run drew, by subject and over time, small enough for a page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lora_trainer.engine.run_facts import Thumbnail
from lora_trainer.engine.thumbnails import data_uri, open_small

MOST_SUBJECTS, MOST_MOMENTS = 8, 12
SMALL_PX, SHEET_PX, NEWEST_PX, NEWEST_SHEET_PX = 448, 720, 768, 1440
SHEET = "sample/over_time.png"
MOST_READ = 20_000  # files of a folder
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
# where the files lie, and what their names without ending say; {name} is the run's
PLACES = (
    ("sample", r"{name}(?P<variant>_ema)?_(?P<epoch>e?)(?P<count>\d{{6,}})(?:_(?P<subject>.+))?"),
    ("sample/over_time", r"(?P<subject>.+)_(?P<count>\d{{8}})"),
    (".", r"fakes(?:(?P<kimg>\d{{6,}})|_init)"),
)
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises for a bad file


@dataclass(frozen=True)
class Drawn:
    """A file. Files sort by `order`, of which the parts are counted alike: steps, or thousands of images."""

    subject: str
    order: int
    label: str
    file: Path
    caption: str = ""


@dataclass(frozen=True)
class Subject:
    """One prompt or sheet; `pictures` has one for each moment, or None where none was drawn."""

    name: str
    caption: str
    pictures: tuple[Thumbnail | None, ...]
    sheet: bool = False  # holds many pictures


@dataclass(frozen=True)
class Gallery:
    """`left_out` says what the page does not show of what there is; `sheet` has all moments beside the originals."""

    moments: tuple[str, ...]
    subjects: tuple[Subject, ...]
    left_out: str = ""
    sheet: Thumbnail | None = None


NOTHING_DRAWN = Gallery((), ())


def gallery_of(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> Gallery:
    """What the run `name` drew, of many some evenly chosen moments with the first and the last among them."""
    drawn = find_drawn(folder, name, rows)
    if not drawn:
        return NOTHING_DRAWN
    subjects = list(dict.fromkeys(each.subject for each in sorted(drawn, key=lambda each: each.subject)))
    labels = {each.order: each.label for each in drawn}
    orders = _spread(sorted(labels), MOST_MOMENTS)
    by_place = {(each.subject, each.order): each for each in drawn}
    shown = []
    for subject in subjects[:MOST_SUBJECTS]:
        own = [by_place.get((subject, order)) for order in orders]
        captions = [each.caption for each in own if each is not None and each.caption]
        sheet = not captions
        shown.append(Subject(subject, captions[-1] if captions else "", tuple(_thumbnails(own, sheet)), sheet))
    left = [
        f"{count} of {total} {what} are shown"
        for what, count, total in (
            ("moments", len(orders), len(labels)),
            ("subjects", len(shown), len(subjects)),
        )
        if count < total
    ]
    return Gallery(tuple(labels[order] for order in orders), tuple(shown), "; ".join(left), _sheet(folder / SHEET))


def find_drawn(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> list[Drawn]:
    """Of the first place that has any."""
    last_step_of: dict[int, int] = {}
    for row in rows:
        if isinstance(row.get("epoch"), int):
            last_step_of[row["epoch"]] = row["step"]
    for place, pattern in PLACES:
        regex = re.compile(pattern.format(name=re.escape(name)))
        if found := list(_of_place(folder / place, regex, last_step_of)):
            return found
    return []


def _of_place(folder: Path, regex: re.Pattern[str], last_step_of: Mapping[int, int]) -> Iterator[Drawn]:
    if not folder.is_dir():
        return
    for number, file in enumerate(sorted(folder.iterdir())):
        match = regex.fullmatch(file.stem) if file.suffix.lower() in ENDINGS else None
        if match is None or number > MOST_READ:
            continue
        said = match.groupdict()
        if "kimg" in said:
            kimg = int(said["kimg"] or 0)
            yield Drawn("", kimg if said["kimg"] else -1, f"{kimg} kimg" if said["kimg"] else "at first", file)
            continue
        count, subject = int(said["count"]), (said.get("variant") or "")[1:] + " " + (said.get("subject") or "")
        caption, step = _written_in(file)
        if not said.get("epoch"):
            yield Drawn(subject.strip(), count, f"step {count}", file, caption)
        elif step is None:
            yield Drawn(subject.strip(), last_step_of.get(count, count), f"epoch {count}", file, caption)
        else:
            yield Drawn(subject.strip(), step, f"epoch {count} (step {step})", file, caption)


def _written_in(file: Path) -> tuple[str, int | None]:
    """The prompt and the training step, where the file says how it was made as web UIs do."""
    try:
        with Image.open(file) as image:
            said = str(image.info.get("parameters", ""))
    except UNREADABLE:
        return "", None
    step = re.search(r"Training step: (\d+)", said)
    return re.split(r"\n(?:Negative prompt|Steps): ", said)[0], int(step[1]) if step else None


def _sheet(file: Path) -> Thumbnail | None:
    if not file.is_file():
        return None
    try:
        return _thumbnail(Drawn("", 0, "over time", file), newest=True, sheet=True)
    except UNREADABLE:
        return None


def _thumbnails(drawn: Sequence[Drawn | None], sheet: bool) -> Iterator[Thumbnail | None]:
    """The newest one is the largest."""
    for place, each in enumerate(drawn):
        newest = not any(drawn[place + 1 :])
        try:
            yield None if each is None else _thumbnail(each, newest, sheet)
        except UNREADABLE:
            yield None


def _thumbnail(drawn: Drawn, newest: bool, sheet: bool) -> Thumbnail:
    sides = (SHEET_PX, NEWEST_SHEET_PX) if sheet else (SMALL_PX, NEWEST_PX)
    small = open_small(drawn.file, sides[newest])
    return Thumbnail(data_uri(small), drawn.label, *small.size)


def _spread(orders: Sequence[int], most: int) -> list[int]:
    if len(orders) <= most:
        return list(orders)
    places = [round(index * (len(orders) - 1) / (most - 1)) for index in range(most)]
    return [orders[place] for place in places]
