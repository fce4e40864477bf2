"""Decoded pictures in one file that every process maps into memory, and that the next run finds again.

The file is named by what it was made of. Beside it lies a note with what was learnt while decoding, so that a run whose
pictures are too many to be kept decoded need not look at them a second time either. Nothing here is needed: without
room for it, or with the file damaged, the pictures are decoded again.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import numpy as np

from lora_trainer.atomic import write_text
from lora_trainer.data.images import Pixels

log = logging.getLogger(__name__)

GIB = 2**30
SPARED = 0.5  # of the free disk: what a training itself writes must fit beside the pixels
CHUNK_BYTES = 2**24
DAY_S = 86400
ABANDONED_DAYS, UNUSED_DAYS = 1, 30


@dataclass(frozen=True)
class PixelFolder:
    """Where pixels are kept, up to so many GiB for a data set; 0 keeps nothing, and no notes."""

    path: Path
    gib: float

    def facts(self, key: str) -> Any | None:
        """What was noted when the pictures of this key were decoded; None when nothing was."""
        return _note(self.path, key).get("facts") if self.gib else None

    def pixels(self, key: str, size_bytes: int) -> Path | None:
        """The file with the pixels of this key, when it is there and undamaged."""
        digest = _note(self.path, key).get("digest")
        path = self.path / f"{key}.pixels"
        if not self.gib or not digest or not self._may_take(size_bytes):
            return None
        try:
            state = path.stat()
            if state.st_size != size_bytes or _digest(str(path), state.st_size, state.st_mtime_ns) != digest:
                return None
            path.with_suffix(".json").touch()
        except OSError:
            return None
        return path

    def start(self, size_bytes: int) -> Unfinished | None:
        """A new file to put pixels into; None when they are too many, or there is no room."""
        if not self._may_take(size_bytes):
            return None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            _sweep(self.path)
            if size_bytes > shutil.disk_usage(self.path).free * SPARED:
                log.warning("%s has no room for %.1f GiB of decoded pictures", self.path, size_bytes / GIB)
                return None
            return Unfinished(self.path)
        except OSError as error:
            log.warning("%s: decoded pictures cannot be kept there (%s)", self.path, error.strerror)
            return None

    def note(self, key: str, facts: Any) -> None:
        """Keep what was learnt about pictures whose pixels are not kept."""
        if self.gib and _note(self.path, key).get("facts") != facts:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                write_text(self.path / f"{key}.json", json.dumps({"facts": facts}))
            except OSError as error:
                log.warning("%s: notes on pictures cannot be kept there (%s)", self.path, error.strerror)

    def _may_take(self, size_bytes: int) -> bool:
        return 0 < size_bytes <= self.gib * GIB


class Unfinished:
    """A file of pixels that gets its name only when it is whole. Threads may put pixels at the same time.

    A full disk is no error: `keep` then says that there is no file. It is written, not mapped, because a mapped file
    that outgrows its disk kills the process.
    """

    def __init__(self, folder: Path) -> None:
        handle, name = tempfile.mkstemp(dir=folder, suffix=".unfinished")
        self._path = Path(name)
        self._file: IO[bytes] | None = os.fdopen(handle, "r+b")
        self._lock = threading.Lock()

    def put(self, offset: int, pixels: Pixels) -> None:
        data = np.ascontiguousarray(pixels).data
        with self._lock:
            if self._file is None:
                return
            try:
                self._file.seek(offset)
                self._file.write(data)
            except OSError as error:
                log.warning("%s: decoded pictures cannot be kept there (%s)", self._path.parent, error.strerror)
                self.discard()

    def keep(self, key: str, facts: Any) -> None:
        """Give the file its name and write the note."""
        if self._file is None:
            return
        try:
            self._file.close()
            final = self._path.with_name(f"{key}.pixels")
            self._path.replace(final)
            state = final.stat()
            note = {"facts": facts, "digest": _digest(str(final), state.st_size, state.st_mtime_ns)}
            write_text(final.with_suffix(".json"), json.dumps(note))
        except OSError as error:  # on Windows a file that another process has mapped cannot be replaced
            log.warning("%s: decoded pictures cannot be kept there (%s)", self._path.parent, error.strerror)
        self.discard()

    def discard(self) -> None:
        """Remove what has not got its name."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                log.debug("%s: closed with unwritten pixels", self._path)  # a full disk again; it goes anyway
        self._path.unlink(missing_ok=True)


def default_folder() -> Path:
    """Of this person in the system's folder for temporary files."""
    person = os.getuid() if hasattr(os, "getuid") else "pixels"
    return Path(tempfile.gettempdir()) / f"lora_trainer-{person}"


@functools.lru_cache(maxsize=8)
def mapped(path: str) -> Pixels:
    """The file's bytes, shared with every other process that has it mapped."""
    return np.asarray(np.memmap(path, np.uint8, "r"))


def _sweep(folder: Path) -> None:
    """Remove what killed runs left, and what no run has used for a month."""
    for file in folder.iterdir():
        days = ABANDONED_DAYS if file.suffix == ".unfinished" else UNUSED_DAYS
        used = file.with_suffix(".json") if file.suffix == ".pixels" else file
        with contextlib.suppress(OSError):  # another run removes it too, or still has it mapped
            if time.time() - (used if used.exists() else file).stat().st_mtime > days * DAY_S:
                file.unlink()


def _note(folder: Path, key: str) -> dict[str, Any]:
    try:
        note = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


@functools.lru_cache(maxsize=8)
def _digest(path: str, size_bytes: int, changed_ns: int) -> str:
    """Of the content; size and time are there so that a file is read through once as long as nobody touches it."""
    digest = blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
