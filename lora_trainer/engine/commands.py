"""What a person asks of a running training: by a key on its terminal, or by making a file in its folder."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0  # a look costs four questions to the disk


@dataclass(frozen=True)
class Command:
    """A key, the name of a file that means the same, and what it does."""

    key: str
    file: str
    about: str


SAVE = Command("s", "save.now", "saves a file and a checkpoint")
SAMPLE = Command("p", "sample.now", "draws the previews")
STOP_AFTER_EPOCH = Command("e", "stop.epoch", "saves and stops at the end of this epoch")
STOP = Command("q", "stop.now", "saves a checkpoint and stops now")
COMMANDS = (SAVE, SAMPLE, STOP_AFTER_EPOCH, STOP)


class Keys(Protocol):
    """Where keys come from."""

    def pressed(self) -> str:
        """The keys since the last call, without waiting."""
        ...

    def restore(self) -> None:
        """Leave the terminal as it was before."""
        ...


class Commands:
    """Collects what was asked for until the loop takes it. Only the main process listens."""

    def __init__(self, folder: Path, keys: Keys | None = None) -> None:
        self.folder = folder
        self.keys = keys
        self.heard: set[Command] = set()
        self._looked = time.monotonic()

    def leave_terminal(self) -> None:
        """Hear no more keys, at once: after Ctrl-C the launcher ends before us, and the shell takes what it finds."""
        if self.keys is not None:
            self.keys.restore()
            self.keys = None

    def look(self) -> None:
        """Take in new keys and files, at most once a second."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        keys = self.keys.pressed().lower() if self.keys is not None else ""
        for command in COMMANDS:
            if (command.key in keys or self._taken(command)) and command not in self.heard:
                log.info("asked for: %s %s", command.key, command.about)
                self.heard.add(command)

    def _taken(self, command: Command) -> bool:
        """Whether its file was there; it is removed."""
        try:
            (self.folder / command.file).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:  # on Windows another program may still hold it
            log.warning("%s: cannot be removed: %s", self.folder / command.file, error)
            return False
        return True


DEAF = Commands(Path())  # nobody looks


@contextlib.contextmanager
def listening(folder: Path, is_main: bool) -> Iterator[Commands]:
    """Commands for the time of the block: the terminal hands over single keys within, and is as before afterwards."""
    if not is_main:
        yield DEAF
        return
    with terminal_keys() as keys:
        commands = Commands(folder, keys)
        for line in offered(folder, with_keys=keys is not None):
            log.info("%s", line)
        yield commands


def forget_old_commands(folder: Path) -> None:
    """Remove command files from before this run: they were meant for another one."""
    for command in COMMANDS:
        (folder / command.file).unlink(missing_ok=True)


def offered(folder: Path, *, with_keys: bool) -> list[str]:
    """What can be asked for, as lines for a person."""
    if with_keys:
        files = ", ".join(command.file for command in COMMANDS)
        keys = "; ".join(f"{command.key} {command.about}" for command in COMMANDS)
        return [f"keys: {keys}", f"the same from elsewhere: make a file {files} in {folder}"]
    return [f"a file in {folder} is a command: {'; '.join(f'{each.file} {each.about}' for each in COMMANDS)}"]


@contextlib.contextmanager
def terminal_keys() -> Iterator[Keys | None]:
    """The keys of the terminal that this program is started from, or None without one."""
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        yield None
    elif sys.platform == "win32":
        yield _WindowsKeys()
    else:
        keys = _TerminalKeys(sys.stdin.fileno())
        try:
            yield keys if keys.own() else None
        finally:
            keys.restore()


class _WindowsKeys:
    """A Windows console gives single keys without being told."""

    def pressed(self) -> str:
        import msvcrt

        windows: Any = msvcrt
        found = ""
        while windows.kbhit():
            found += windows.getwch()
        return found

    def restore(self) -> None:
        """Nothing was changed."""


class _TerminalKeys:
    """A terminal that hands over each key at once and shows none, while this program is in its foreground.

    In the background (Ctrl-Z and `bg`, or a `&`) a program that touches its terminal is halted, so it is left alone.
    """

    def __init__(self, handle: int) -> None:
        import termios

        self.handle = handle
        self.before: list[Any] | None = termios.tcgetattr(handle)

    def own(self) -> bool:
        """Whether the terminal is this program's at the moment; if so, it is made to hand over single keys."""
        import termios
        import tty

        try:
            if os.tcgetpgrp(self.handle) != os.getpgrp():
                return False
            if termios.tcgetattr(self.handle)[3] & termios.ICANON:  # at first, and again after Ctrl-Z and `fg`
                tty.setcbreak(self.handle, termios.TCSAFLUSH)  # what was typed before was not meant for the training
        except (OSError, termios.error):
            return False
        return True

    def pressed(self) -> str:
        import select

        if not self.own():
            return ""
        found = b""
        while select.select([self.handle], [], [], 0)[0] and (more := os.read(self.handle, 64)):
            found += more
        return found.decode("ascii", "ignore")

    def restore(self) -> None:
        import termios

        with contextlib.suppress(OSError, termios.error):
            if self.before is not None and os.tcgetpgrp(self.handle) == os.getpgrp():
                termios.tcsetattr(self.handle, termios.TCSANOW, self.before)
