"""Picture files where they lie, in a folder or a zip."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from lora_trainer.data.image_listing import Entry, Listing, is_hidden, largest_bytes, listing_of
from lora_trainer.data.image_zip import ImageZip
from lora_trainer.data.images import BadPicture
from lora_trainer.errors import Refusal


class ImageArchive(Protocol):
    """Names are paths within it, with `/`."""

    @property
    def path(self) -> Path: ...

    def listing(self) -> Listing:
        """Raises Refusal."""
        ...

    def read(self, name: str) -> bytes:
        """A whole file. Raises BadPicture."""
        ...

    def head(self, name: str, count: int) -> bytes:
        """Its first bytes. Raises BadPicture."""
        ...

    def times(self, names: Sequence[str]) -> str:
        """What changes with the files in a way that their entries may not show; "" where their entries show all."""
        ...


def open_archive(path: Path) -> ImageArchive:
    """Raises Refusal for what is neither a folder nor a zip."""
    if path.is_dir():
        return ImageFolder(path)
    try:
        if zipfile.is_zipfile(path):
            return ImageZip(path)
        with path.open("rb"):
            pass
    except OSError as error:
        raise Refusal(f"{path}: cannot be read ({error.strerror}); correct the path") from error
    if path.suffix.lower() == ".zip":
        raise Refusal(f"{path}: no zip, or a damaged one; copy it again")
    raise Refusal(f"{path}: neither a folder nor a zip; give one of these")


@dataclass(frozen=True)
class ImageFolder:
    """A folder and those in it; hidden ones are left out, and links to folders are not followed."""

    path: Path

    def listing(self) -> Listing:
        try:
            return listing_of(self.path, list(_files(str(self.path), "")))
        except OSError as error:
            raise Refusal(f"{error.filename}: cannot be read ({error.strerror})") from error

    def read(self, name: str) -> bytes:
        most = largest_bytes(name)
        if self._size(name) > most:
            raise BadPicture(f"more than {most >> 20} MiB")
        return self.head(name, -1)

    def head(self, name: str, count: int) -> bytes:
        try:
            with (self.path / name).open("rb") as file:
                return file.read(count)
        except OSError as error:
            raise BadPicture(f"cannot be read ({error.strerror})") from error

    def times(self, names: Sequence[str]) -> str:
        digest = blake2b(digest_size=16)
        for name in names:
            digest.update(f"{(self.path / name).stat().st_mtime_ns} ".encode())
        return digest.hexdigest()

    def _size(self, name: str) -> int:
        try:
            return (self.path / name).stat().st_size
        except OSError as error:
            raise BadPicture(f"cannot be read ({error.strerror})") from error


def _files(folder: str, prefix: str) -> Iterator[Entry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_file() or entry.is_symlink():  # reading one that leads nowhere will tell
                yield Entry(f"{prefix}{entry.name}", entry.stat().st_size if entry.is_file() else 0)
