"""The lines of a run once more, in a file."""

from __future__ import annotations

import logging
from pathlib import Path

PACKAGE = "lora_trainer"


class _File(logging.Handler):
    """Opened for each line: no program is hindered in reading, moving or deleting it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def emit(self, record: logging.LogRecord) -> None:
        try:
            with self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(record.getMessage() + "\n")
        except OSError:  # a full disk; what matters is said elsewhere
            self.handleError(record)


def keep_log(path: Path) -> None:
    """Add every later line of the package to this file, and to none that was kept before."""
    package = logging.getLogger(PACKAGE)
    package.handlers[:] = [handler for handler in package.handlers if not isinstance(handler, _File)]
    package.addHandler(_File(path))
