"""The preset's file: read, and written back when it is still what was read."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from lora_trainer import atomic
from lora_trainer.config.json_source import bytes_of, decoded, parse_json
from lora_trainer.config.problems import PresetError
from lora_trainer.errors import Refusal

MARK = b"\xef\xbb\xbf"
ABSENT = "absent"


class ChangedMeanwhile(Refusal):
    """The file is not the one that was read."""


@dataclass(frozen=True)
class Content:
    """The text without its byte order mark; the version is another one after every change."""

    text: str
    version: str


@dataclass(frozen=True)
class Document:
    """`path` is the file as the person named it, and what messages call it."""

    path: Path

    def read(self) -> Content:
        """Nothing of a file that does not exist. Raises PresetError when it cannot be read."""
        if not self.path.exists():
            return Content("", ABSENT)
        data = bytes_of(self.path)
        return Content(decoded(self.path, data), _version(data))

    def write(self, text: str, version: str, *, over_changes: bool = False) -> Content:
        """Replace the file at once, if it still is the given version. Raises Refusal, or ChangedMeanwhile."""
        try:
            parse_json(str(self.path), text)
            data = text.encode("utf-8")
        except (PresetError, UnicodeEncodeError) as error:
            raise Refusal(f"{self.path}: not saved, because the text is no JSON: {error}") from None
        before = bytes_of(self.path) if self.path.exists() else None
        if (ABSENT if before is None else _version(before)) != version and not over_changes:
            what = "was removed" if before is None else "was changed by another program"
            raise ChangedMeanwhile(f"{self.path} {what} since it was read here")
        data = (MARK if before is not None and before.startswith(MARK) else b"") + data
        try:
            _replace(self.path.resolve(), data)  # a link stays one
        except OSError as error:
            raise Refusal(f"{self.path}: cannot be written ({error.strerror})") from None
        return Content(text, _version(data))


def _replace(file: Path, data: bytes) -> None:
    with atomic.staged_file(file) as staged:
        staged.write(data)
        if file.exists():
            shutil.copymode(file, staged.name)  # a file with a key in it may be for its owner alone


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
