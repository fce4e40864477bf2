"""The one exception that is shown to a person as a message instead of a traceback."""

from __future__ import annotations


class Refusal(Exception):
    """Something the person can mend; the command line prints it and exits with status 2.

    Each problem is one sentence that says what was found, where, and what to do about it.
    """

    exit_status = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
