"""Which files of a zip or a folder are the pictures of a data set, and which one holds their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from lora_trainer.data.pairs import ENDINGS as COMMON_ENDINGS
from lora_trainer.errors import Refusal

ENDINGS = (*COMMON_ENDINGS, ".gif", ".jfif", ".jp2", ".pgm", ".ppm", ".tga")
LABELS = "dataset.json"
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".bz2")
NAMED_AT_MOST = 20
LARGEST_PICTURE, LARGEST_LABELS = 2**28, 2**29  # bytes of a file; what claims to be larger is a mistake or an attack


@dataclass(frozen=True)
class Entry:
    """A file by its path within the data set, with `/`. `checksum` is what a zip has of it, or of its beginning."""

    name: str
    size_bytes: int
    checksum: str = ""


@dataclass(frozen=True)
class Listing:
    """The pictures sorted by name, the name of the file with their labels or "", and remarks."""

    pictures: tuple[Entry, ...]
    labels: str = ""
    notes: tuple[str, ...] = ()


def listing_of(path: Path, files: Sequence[Entry]) -> Listing:
    """What is of use among the files of the archive `path`. Raises Refusal when there are no pictures."""
    files = sorted((file for file in files if not is_left_out(file.name)), key=lambda file: file.name)
    pictures = tuple(file for file in files if ending(file.name) in ENDINGS)
    inner = [file.name for file in files if ending(file.name) in ARCHIVES]
    if not pictures and inner:
        raise Refusal(f"{path}: there are no pictures but an archive, {inner[0]}; unpack it and give what is in it")
    if not pictures:
        raise Refusal(f"{path}: there are no pictures ({', '.join(ENDINGS)})")
    notes = tuple(f"{path}: {name}: an archive in it is not looked into" for name in inner[:1])
    return Listing(pictures, _labels_name([file.name for file in files], pictures), notes)


def is_wanted(name: str) -> bool:
    return ending(name) in ENDINGS or PurePosixPath(name).name == LABELS


def is_left_out(name: str) -> bool:
    """Whether the file or a folder above it is hidden, or one of those that macOS adds to a zip."""
    return any(is_hidden(part) for part in name.split("/"))


def is_hidden(part: str) -> bool:
    return part == "__MACOSX" or (part.startswith(".") and part not in (".", ".."))


def ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def largest_bytes(name: str) -> int:
    """That a file of this name may have."""
    return LARGEST_LABELS if PurePosixPath(name).name == LABELS else LARGEST_PICTURE


def listed(names: Sequence[str]) -> str:
    """`a.png, b.png`: the first ones of many, and how many more."""
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def first_of(problems: Sequence[str]) -> list[str]:
    """The first ones of many, and how many more."""
    more = len(problems) - NAMED_AT_MOST
    return [*problems[:NAMED_AT_MOST], *([f"... and {more} more"] if more > 0 else [])]


def bad_file(path: Path, name: str, error: Exception) -> str:
    """The sentence about a picture of this archive that cannot be read."""
    return f"{path}: {name}: {error}; replace it, or take it out"


def entries_digest(entries: Sequence[Entry]) -> str:
    """Of names, sizes and checksums."""
    digest = blake2b(digest_size=16)
    for entry in entries:
        text = f"{entry.name}\0{entry.size_bytes}\0{entry.checksum}\0"
        digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _labels_name(names: Sequence[str], pictures: Sequence[Entry]) -> str:
    """dataset.json at the top, or at the top of the one folder in which all the pictures lie."""
    found = [name for name in names if PurePosixPath(name).name == LABELS]
    highest = min(found, key=lambda name: name.count("/"), default="")
    folder = highest.removesuffix(LABELS)
    return highest if all(picture.name.startswith(folder) for picture in pictures) else ""
