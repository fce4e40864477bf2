"""What earlier looks at picture files found, so that a file which has not changed is neither read nor decoded again.

One file for each folder of pictures, in the person's cache folder. A file counts as unchanged while its size and its
time of change are the same; whatever is odd about an entry, it is looked at anew.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from lora_trainer import atomic
from lora_trainer.user_cache import user_cache

VERSION = 2
FOLDER = "pictures"
Stamp = tuple[int, int]  # bytes, and nanoseconds of the last change


@dataclass(frozen=True)
class Look:
    """What was found of a file: its size as a person sees it, its digest, whether parts are transparent, None where
    nobody asked, and whether it was decoded as a ``whole`` or its header was enough."""

    size_px: tuple[int, int]  # height, width
    digest: str
    transparent: bool | None = None
    whole: bool = True


@dataclass
class SurveyMemory:
    """`looks` by the file, each with the stamp that the file had."""

    looks: dict[Path, tuple[Stamp, Look]] = field(default_factory=dict)
    _read: set[Path] = field(default_factory=set)  # folders
    _new: set[Path] = field(default_factory=set)  # folders with looks that are not written yet

    def read(self, folders: set[Path]) -> None:
        for folder in folders - self._read:
            self._read.add(folder)
            self.looks.update(_entries(folder))

    def recall(self, path: Path) -> Look | None:
        """What is known of the file, if it has not changed. May be called by several threads."""
        known = self.looks.get(path)
        if known is None:
            return None
        with contextlib.suppress(OSError):
            if known[0] == stamp(path):
                return known[1]
        return None

    def keep(self, path: Path, when: Stamp, look: Look) -> None:
        """`when` is from before the file was read: what is written to it meanwhile makes it another file."""
        self.looks[path] = (when, look)
        self._new.add(path.parent)

    def write(self) -> None:
        """What is new. A cache that cannot be written is no reason to stop."""
        of_folder: dict[Path, dict[str, list[object]]] = {folder: {} for folder in self._new}
        for path, (when, look) in self.looks.items():
            if path.parent in of_folder:
                of_folder[path.parent][path.name] = [
                    *when, *look.size_px, look.digest, look.transparent, look.whole,
                ]  # fmt: skip
        for folder, rows in of_folder.items():
            content = json.dumps({"version": VERSION, "folder": str(folder), "pictures": rows}, ensure_ascii=False)
            with contextlib.suppress(OSError):
                place = _place(folder)
                place.parent.mkdir(parents=True, exist_ok=True)
                atomic.write_text(place, content)
        self._new.clear()


def stamp(path: Path) -> Stamp:
    """Raises OSError."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _place(folder: Path) -> Path:
    return (
        user_cache(FOLDER) / f"{blake2b(str(folder).encode(errors='surrogatepass'), digest_size=16).hexdigest()}.json"
    )


def _entries(folder: Path) -> Iterator[tuple[Path, tuple[Stamp, Look]]]:
    """Those of the folder's file that are sound."""
    try:
        content = json.loads(_place(folder).read_text(encoding="utf-8"))
        if content["version"] != VERSION or content["folder"] != str(folder):
            return
        rows: dict[str, Any] = content["pictures"]
        for name, (size, changed, height, width, digest, transparent, whole) in rows.items():
            numbers = (size, changed, height, width)
            if (
                all(type(number) is int for number in numbers)
                and type(digest) is str
                and transparent in (True, False, None)
                and type(whole) is bool
            ):
                yield folder / name, ((size, changed), Look((height, width), digest, transparent, whole))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
