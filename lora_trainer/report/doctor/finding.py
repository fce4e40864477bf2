"""One thing that was found in a data set, as the page tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

REFUSED, HARM, NOTE = "refused", "harm", "note"
LEVELS = (REFUSED, HARM, NOTE)
Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Finding:
    """`title` begins with how many; `meaning` is what it does to the training, `cure` what to do about it.

    `rows` are of a file and what is the matter with it; `shown` are the numbers of entries, the worst first; `section`
    is where the page shows more of it.
    """

    level: str
    title: str
    meaning: str
    cure: str = ""
    rows: Rows = ()
    shown: tuple[int, ...] = ()
    section: str = ""


def counted(count: int, one: str, many: str = "") -> str:
    """`1 picture`, `3 pictures`, `2,000 copies`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def share(value: float) -> str:
    """`12 %`; never 0 % of what is there, nor 100 % of what is not all."""
    percent = 100 * value
    if 0 < percent < 1:
        return "under 1 %"
    return "over 99 %" if 99 < percent < 100 else f"{percent:.0f} %"


def verb(count: int, one: str, many: str) -> str:
    return one if count == 1 else many


def listed(words: Sequence[str], most: int = 5) -> str:
    """`a, b and 3 more`."""
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more:,} more" if more > 0 else "")
