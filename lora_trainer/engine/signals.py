"""Stopping on Ctrl-C, `kill`, a closed terminal or a dead launcher: the loop answers between two steps."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

WANTED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # Windows has no SIGHUP, Linux no SIGBREAK
PR_SET_PDEATHSIG = 1
LAUNCHERS = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")  # what accelerate launch and torchrun leave behind


class Stopped(BaseException):
    """A signal, or with 0 a command, ended the run before there was anything to save, or after it was saved."""

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(number)
        self.exit_status = 128 + number if number else 0
        self.message = message


class StopRequest:
    """Remembers the first stop signal for the loop.

    Before the loop runs there is nothing to save, so a signal ends the program where it stands. Within the loop a
    second Ctrl-C gives up at once; other repeats change nothing, because a dying launcher sends them on its own.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.in_loop = False
        self.when_heard: Callable[[], None] = lambda: None  # called by the handler, so that it must be quick

    def install(self) -> None:
        global _installed
        _installed = self
        for name in WANTED:
            number = getattr(signal, name, None)
            if number is not None:
                signal.signal(number, self._remember)
        stop_with_parent()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if not self.in_loop:
            raise Stopped(number, "stopped before the first step")
        if self.signal is not None and number == signal.SIGINT:
            raise Stopped(number, "stopped at once; the same command goes on from the last checkpoint")
        if self.signal is None:
            self.signal = number
            self.when_heard()


_installed: StopRequest | None = None


def stop_requested() -> bool:
    """Whether the loop is to stop, for what takes long between two steps and had better be given up."""
    return _installed is not None and _installed.signal is not None


def stop_with_parent() -> None:
    """On Linux, be told (SIGHUP) when the launcher dies: neither accelerate nor torchrun always passes its end on."""
    if not sys.platform.startswith("linux") or not any(name in os.environ for name in LAUNCHERS):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGHUP)
    if os.getppid() != parent:  # it died between the two lines
        os.kill(os.getpid(), signal.SIGHUP)


@contextlib.contextmanager
def unheard_by_children() -> Iterator[None]:
    """Processes started within are deaf to stop signals from their first moment, and what arrives meanwhile waits.

    Ctrl-C, a closed terminal and a batch system signal every process of the run, but only the loop may answer: a
    loader process that ended by itself would turn a stop into a failure.
    """
    if sys.platform == "win32":  # has no mask; see ignore_interrupts
        yield
        return
    from multiprocessing import resource_tracker

    numbers = [getattr(signal, name) for name in WANTED if hasattr(signal, name)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        resource_tracker.ensure_running()  # here, because it unblocks SIGINT and SIGTERM when it starts
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts(worker: int = 0) -> None:
    """For loader processes on Windows, which inherit no mask."""
    for name in ("SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
