"""What each kind of trainer refuses in pictures that have been looked at, in the trainer's own sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.data.buckets import BucketSettings
from lora_trainer.data.doctor.dataset import DAMAGED, MASK, OTHER, SIZES, TOO_SMALL, UNEVEN, Entry, Wrong
from lora_trainer.data.doctor.fit import Fit, fit
from lora_trainer.data.doctor.picture_look import Look
from lora_trainer.data.image_header import FORMATS, Header
from lora_trainer.data.image_listing import bad_file
from lora_trainer.data.image_misfits import dataset_command, misfits
from lora_trainer.data.pairs import Misfits, Pair, PairFacts, PairSettings


@dataclass(frozen=True)
class BucketRules:
    """Pictures that are brought into buckets, which each data set has by itself, and so many in a step. With `fills`, a
    bucket's last batch is filled up with pictures that it has had before; otherwise it is smaller. With `moves`, each
    step cuts out another part of a picture. `maskless` is refused where no picture has a mask."""

    settings: tuple[BucketSettings, ...]
    batches: tuple[int, ...]
    fills: bool = False
    moves: bool = False
    maskless: str = ""

    def fit(self, entry: Entry, look: Look) -> Fit | None:
        if look.problem or entry.use == MASK or not self.settings:
            return None
        return fit(look.size_px, self.settings[entry.group])

    def wrong(self, entries: Sequence[Entry], looks: Sequence[Look]) -> Sequence[Wrong]:
        found = []
        for number, (entry, look) in enumerate(zip(entries, looks, strict=True)):
            placed = self.fit(entry, look)
            if look.problem and entry.use == MASK:
                found.append(Wrong(DAMAGED, f"{entry.spoken}: the mask cannot be read ({look.problem})", number))
            elif look.problem:
                found.append(Wrong(DAMAGED, f"{entry.spoken}: {look.problem}", number))
            elif placed is not None and placed.problem:
                found.append(Wrong(TOO_SMALL, f"{entry.spoken}: {placed.problem}", number))
        masked = any(entry.use == MASK or look.transparent for entry, look in zip(entries, looks, strict=True))
        return [*found, *([Wrong(OTHER, self.maskless)] if self.maskless and not masked and entries else [])]


@dataclass(frozen=True)
class PairRules:
    """Pictures with partners, or without: `pairs` has one for each original, `numbers` those of its entries."""

    pairs: tuple[Pair, ...]
    numbers: tuple[tuple[int, ...], ...]
    settings: PairSettings
    misfits: Misfits

    def fit(self, entry: Entry, look: Look) -> Fit | None:
        return None

    def wrong(self, entries: Sequence[Entry], looks: Sequence[Look]) -> Sequence[Wrong]:
        found = []
        for number in (number for numbers in self.numbers for number in numbers):
            entry, look = entries[number], looks[number]
            if look.problem:
                found.append(Wrong(DAMAGED, f"{entry.spoken}: {look.problem}", number))
            elif look.sixteen_bit:
                found.append(Wrong(OTHER, f"{entry.spoken}: 16 bits a channel; convert it to 8 bits", number))
        for pair, numbers in zip(self.pairs, self.numbers, strict=True):
            sides = [looks[number] for number in numbers]
            if any(side.problem for side in sides):
                continue
            grey, clear = any(side.grey for side in sides), any(side.transparent for side in sides)
            facts = PairFacts(sides[0].size_px, sides[-1].size_px, grey, clear)
            kind = SIZES if len(sides) > 1 else TOO_SMALL
            found += [Wrong(kind, text, numbers[0]) for text in self.misfits(pair, facts, self.settings)]
        return found


@dataclass(frozen=True)
class ManyRules:
    """Those of several parts of a data set, each of which judges its own pictures."""

    parts: tuple[PairRules, ...]

    def fit(self, entry: Entry, look: Look) -> Fit | None:
        return None

    def wrong(self, entries: Sequence[Entry], looks: Sequence[Look]) -> Sequence[Wrong]:
        return [each for part in self.parts for each in part.wrong(entries, looks)]


@dataclass(frozen=True)
class SquareRules:
    """Squares of one size and one number of channels, from a folder or a zip."""

    path: Path
    power_of_two: bool = True

    def fit(self, entry: Entry, look: Look) -> Fit | None:
        return None

    def wrong(self, entries: Sequence[Entry], looks: Sequence[Look]) -> Sequence[Wrong]:
        found, headers = [], {}
        for number, (entry, look) in enumerate(zip(entries, looks, strict=True)):
            problem = look.problem
            if not problem and look.kind not in FORMATS:
                problem = f"of the kind {look.kind}, which data sets have not; save it as PNG"
            if problem:
                found.append(Wrong(DAMAGED, bad_file(self.path, entry.name, Exception(problem)), number))
            else:
                headers[entry.name] = Header(look.stored_px, 1 if look.grey else 3, look.has_alpha)
        faults = misfits(headers, self.power_of_two)
        found += [Wrong(UNEVEN, f"{self.path}: {fault}") for fault in faults.problems]
        if faults.problems:
            command = dataset_command(self.path, faults.options)
            found.append(Wrong(UNEVEN, f"{self.path}: make a data set of it with: {command}"))
        return found
