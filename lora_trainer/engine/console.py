"""What the person sees: log lines, a progress bar on a terminal, and plain lines in a file."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_EVERY_S = 10.0  # how often a run without a terminal says where it is

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


class _Lines(logging.Handler):
    """Writes above a running progress bar, and never breaks or colours a line: paths stay as they are."""

    def emit(self, record: logging.LogRecord) -> None:
        where = errors if record.levelno >= logging.ERROR else console
        where.print(record.getMessage(), markup=False, highlight=False, soft_wrap=True)


def set_up_logging(main: bool) -> None:
    """Our own messages as plain lines, from the main process alone; libraries speak only when something fails."""
    package = logging.getLogger("lora_trainer")
    package.handlers[:] = [_Lines()]
    package.propagate = False
    package.setLevel(logging.INFO if main else logging.CRITICAL)
    for library in ("diffusers", "transformers"):  # their warnings are about uses that are not ours
        logging.getLogger(library).setLevel(logging.ERROR)
    if hasattr(sys.stdout, "reconfigure"):  # a Windows console may not know the letters of a file name
        sys.stdout.reconfigure(errors="replace")


class RunDisplay:
    """The running line of a training: step, epoch, loss, rate, images a second, memory, time left."""

    def __init__(self, total: int, start: int) -> None:
        self.live = console.is_terminal
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not self.live,
        )
        self.total = total
        self.start = start
        self.task = self.progress.add_task("training", total=total, completed=start, text="")
        self._began = self._said = time.monotonic()

    def step(self, done: int, text: str) -> None:
        self.progress.update(self.task, completed=done, text=text)
        now = time.monotonic()
        if not self.live and (now - self._said >= PLAIN_EVERY_S or done == self.total):
            self._said = now
            left = (now - self._began) / max(1, done - self.start) * (self.total - done)
            logging.getLogger(__name__).info("step %d/%d  %s  %s left", done, self.total, text, spoken_time(left))


@contextmanager
def run_display(total: int, start: int, visible: bool) -> Iterator[RunDisplay]:
    display = RunDisplay(total, start)
    if not visible:
        display.live = True
        display.progress.disable = True
    with display.progress:
        yield display


@contextmanager
def counted(description: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar for a job of known size; gives a callback (done, total)."""
    with Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as progress:
        task = progress.add_task(description, total=total)

        def advance(done: int, whole: int) -> None:
            progress.update(task, completed=done, total=whole)

        yield advance


def spoken_time(seconds: float) -> str:
    """1:02:03 or 2:03."""
    whole = int(max(0.0, seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def spoken(values: dict[str, Any]) -> str:
    """The running line's text: `epoch 2/36  loss 0.1213  rate 1.0e-04  3.1 images/s  6.2 GiB`."""
    return "  ".join(f"{name} {value}" if name else str(value) for name, value in values.items())
