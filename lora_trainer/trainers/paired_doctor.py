"""Pairs of pictures for the dataset doctor: a row of files, the originals with their partners behind them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath

from lora_trainer.data.doctor.dataset import PARTNER, TRAINED, Entry
from lora_trainer.data.pairs import Pair


def pair_entries(
    pairs: Sequence[Pair], use: str = TRAINED, start: int = 0
) -> tuple[list[Entry], list[tuple[int, ...]]]:
    """The entries, counted from `start`, and for each pair the numbers of its own."""
    entries: list[Entry] = []
    numbers: list[tuple[int, ...]] = []
    for pair in pairs:
        first = start + len(entries)
        for which in pair.sides:
            place = pair.gt if which == "gt" else pair.lq or ""
            entries.append(
                Entry(
                    pair.name if which == "gt" else f"{pair.name} (LQ)",
                    pair.spoken(which),
                    partial(pair.bytes_of, which),
                    PurePosixPath(place).suffix,
                    pair.name.rpartition("/")[0],
                    use=use if which == "gt" else PARTNER,
                    of=None if which == "gt" else first,
                )
            )
        numbers.append(tuple(range(first, start + len(entries))))
    return entries, numbers
