"""A zip of pictures, read without unpacking: nothing of it is written to the disk, and no entry can fill the memory."""

from __future__ import annotations

import functools
import os
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lora_trainer.data.image_listing import (
    Entry,
    Listing,
    first_of,
    is_left_out,
    is_wanted,
    largest_bytes,
    listing_of,
)
from lora_trainer.data.images import BadPicture
from lora_trainer.errors import Refusal

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1  # of an entry's flags
DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class ImageZip:
    """Pickled into loader processes, which open it themselves; threads may share it."""

    path: Path

    def listing(self) -> Listing:
        """Raises Refusal that names entries which have no business in a zip of pictures (the first 20)."""
        opened = _open(self.path)
        if problems := [f"{self.path}: {problem}" for problem in opened.problems()]:
            raise Refusal(*first_of(problems))
        files = [Entry(name, info.file_size, f"{info.CRC:08x}") for name, info in opened.entries.items()]
        return listing_of(self.path, files)

    def read(self, name: str) -> bytes:
        """A whole file, checked by its checksum. Raises BadPicture."""
        return _open(self.path).read(name, -1)

    def head(self, name: str, count: int) -> bytes:
        """The first bytes of a file. Raises BadPicture."""
        return _open(self.path).read(name, count)

    def times(self, names: Sequence[str]) -> str:
        """Nothing: the checksums change with the files."""
        return ""


@dataclass(frozen=True)
class _OpenZip:
    """`entries` are those of files by their names with `/`, whatever program made the zip."""

    file: zipfile.ZipFile
    entries: Mapping[str, zipfile.ZipInfo]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, name: str, count: int) -> bytes:
        """So many bytes, or with -1 as many as the zip says that there are, whatever it unpacks to.

        One thread at a time, because ZipFile counts its readers without a lock.
        """
        if name not in self.entries:
            raise BadPicture("is not in the zip")
        try:
            with self.lock, self.file.open(self.entries[name]) as entry:
                return entry.read(count)
        except Exception as error:  # what damage leads to is up to zipfile and zlib
            raise BadPicture(f"damaged in the zip ({error})") from error

    def problems(self) -> Iterator[str]:
        seen: set[str] = set()
        for info in self.file.infolist():
            name = _with_slashes(info.filename)
            if name.endswith("/") or is_left_out(name):
                continue
            if problem := _entry_problem(info, name):
                yield problem
            elif name in seen:
                yield f"{name}: there are two entries of this name; zip the pictures again"
            seen.add(name)


def _entry_problem(info: zipfile.ZipInfo, name: str) -> str:
    if name.startswith("/") or DRIVE.match(name) or ".." in name.split("/"):
        return f"{info.filename}: this name leads out of the archive, and no zip of pictures has such; zip them again"
    if not is_wanted(name):
        return ""
    if info.flag_bits & ENCRYPTED:
        return f"{name}: encrypted; unpack the zip with its password, and zip the pictures without one"
    if info.compress_type not in METHODS:
        return f"{name}: compressed by method {info.compress_type}; zip the pictures with store or deflate"
    if info.file_size > largest_bytes(name):
        most = largest_bytes(name) >> 20
        return f"{name}: {info.file_size / 2**20:.0f} MiB when unpacked, and such a file may have {most}; take it out"
    return ""


def _open(path: Path) -> _OpenZip:
    """Opened once in each process, and anew when it is another file. Raises Refusal."""
    try:
        state = path.stat()
    except OSError as error:
        raise Refusal(f"{path}: cannot be read ({error.strerror}); correct the path") from error
    return _opened(str(path), os.getpid(), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _opened(path: str, process: int, size_bytes: int, changed_ns: int) -> _OpenZip:
    try:
        file = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise Refusal(f"{path}: cannot be opened as a zip ({error}); copy it again") from error
    names = ((_with_slashes(info.filename), info) for info in file.infolist())
    return _OpenZip(file, {name: info for name, info in names if not name.endswith("/")})


def _with_slashes(name: str) -> str:
    return name.replace("\\", "/")
