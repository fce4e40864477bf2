"""Look at a whole data set: every file once, then what the files are to each other, and what a training refuses."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from lora_trainer.data.buckets import Size
from lora_trainer.data.doctor.caption_findings import CaptionFindings, caption_findings
from lora_trainer.data.doctor.dataset import MEASURED, PARTNER, SHOWN_AS_PICTURES, Dataset, Wrong
from lora_trainer.data.doctor.duplicates import Copies, find_copies
from lora_trainer.data.doctor.fit import Fit
from lora_trainer.data.doctor.partners import Stranger, find_strangers
from lora_trainer.data.doctor.picture_look import Look, look_at_all, pixels_digest
from lora_trainer.data.image_header import Progress

SMALL_PX = 64  # of pictures with a smaller side too many are alike, so that only equal files are copies


@dataclass(frozen=True)
class Examination:
    """`looks` and `fits` are by the number of the entry. `wrong` is all that a training refuses, what the files'
    names and captions show before what the pictures do. `strangers` are partners that do not show the same."""

    dataset: Dataset
    looks: tuple[Look, ...]
    fits: tuple[Fit | None, ...]
    wrong: tuple[Wrong, ...]
    copies: tuple[Copies, ...]
    strangers: tuple[Stranger, ...]
    captions: CaptionFindings | None
    seconds: float

    @property
    def pictures(self) -> list[int]:
        """The numbers of what is trained or measured, without partners and masks."""
        return [number for number, entry in enumerate(self.dataset.entries) if entry.use in SHOWN_AS_PICTURES]

    def uses_in(self) -> dict[tuple[int, Size], float]:
        """How often an epoch draws a picture of each bucket, by the number of the data set and the size."""
        counted: dict[tuple[int, Size], float] = {}
        for number in self.pictures:
            entry, placed = self.dataset.entries[number], self.fits[number]
            if placed is not None and placed.placement is not None and entry.use != MEASURED:
                key = entry.group, placed.placement.bucket_px
                counted[key] = counted.get(key, 0) + entry.repeats
        return dict(sorted(counted.items()))


def examine(dataset: Dataset, progress: Progress | None = None, workers: int = 0) -> Examination:
    """`workers` is the number of threads; 0 is one for each core."""
    began = time.perf_counter()
    entries = dataset.entries
    looks = look_at_all([entry.read for entry in entries], workers or os.cpu_count() or 1, progress)
    fits = tuple(dataset.rules.fit(entry, look) for entry, look in zip(entries, looks, strict=True))
    wrong = (*dataset.problems, *dataset.rules.wrong(entries, looks))
    originals = [entry.of if entry.use == PARTNER else None for entry in entries]
    return Examination(
        dataset, looks, fits, wrong, _copies(dataset, looks),
        find_strangers(originals, [look.print for look in looks]),
        caption_findings(entries, dataset.captions) if dataset.captions is not None else None,
        time.perf_counter() - began,
    )  # fmt: skip


def _copies(dataset: Dataset, looks: Sequence[Look]) -> tuple[Copies, ...]:
    """Of pairs, both sides must be copies: one original with several kinds of damage is no copy. These and their
    partners are compared within a folder only."""
    entries = dataset.entries
    partner = {
        entry.of: number for number, entry in enumerate(entries) if entry.use == PARTNER and entry.of is not None
    }
    digests, prints = [], []
    for number, (entry, look) in enumerate(zip(entries, looks, strict=True)):
        counts = entry.use in SHOWN_AS_PICTURES and not look.problem
        other = looks[partner[number]] if number in partner else look
        digests.append(f"{look.digest} {other.digest}" if counts else "")
        prints.append(other.print if counts and min(look.stored_px) >= SMALL_PX else None)
    found = find_copies(digests, prints, lambda number: pixels_digest(entries[number].read))
    if not partner:
        return found
    return tuple(each for copies in found for each in copies.within([entry.folder for entry in entries]))
