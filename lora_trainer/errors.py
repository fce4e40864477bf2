"""The one exception that is shown to a person instead of a traceback, and the guess of what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Refusal(Exception):
    """Something the person can mend; the command line prints it and exits with status 2.

    Each problem is one sentence that says what was found, where, and what to do about it.
    """

    exit_status = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a typing error most likely stands for; upper and lower case do not matter."""
    by_folded = {name.casefold(): name for name in known}
    matches = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    match = nearest(word, known)
    return f"; did you mean {match}?" if match else ""
