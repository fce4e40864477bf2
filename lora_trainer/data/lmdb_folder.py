"""Pictures in an LMDB: as BasicSR writes it, with keys without ending and meta_info.txt beside it, or as LSUN's."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.data.images import BadPicture
from lora_trainer.errors import Refusal

META = "meta_info.txt"
META_FACTS = re.compile(r"\s+\(\d+, ?\d+(, ?\d+)?\)(\s+\d+)?\s*$")  # what follows a name; a name may hold " (1)" too
LONGEST_KEY = 511  # bytes; LMDB's own limit


def listed_names(text: str) -> dict[str, str]:
    """The names of a meta_info file's lines by these names without ending."""
    places = [META_FACTS.sub("", line).strip() for line in text.splitlines() if line.strip()]
    return {Path(place).with_suffix("").as_posix(): place for place in places}


@dataclass(frozen=True)
class LmdbFolder:
    """`name.lmdb`; its meta_info.txt has a line `0001.png (480,480,3) 1` for each picture."""

    path: Path

    def names(self) -> Sequence[str]:
        """The keys, sorted. Raises Refusal."""
        try:
            names = listed_names((self.path / META).read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise Refusal(
                f"{self.path}: no LMDB of pictures: {META} cannot be read ({error}); "
                "make one with python -m tools.make_lmdb"
            ) from error
        _environment(str(self.path), os.getpid())
        return sorted(names)

    def all_keys(self) -> Sequence[str]:
        """Of every record, in their order; meta_info.txt is not needed. Raises Refusal."""
        environment = _environment(str(self.path), os.getpid())
        with environment.begin(write=False) as transaction, transaction.cursor() as cursor:
            try:
                return [bytes(key).decode("utf-8") for key in cursor.iternext(values=False)]
            except UnicodeDecodeError as error:
                raise Refusal(f"{self.path}: no LMDB of pictures: a key is not UTF-8 ({error.reason})") from error

    def read(self, key: str) -> bytes:
        """A picture's file. Raises BadPicture."""
        with _environment(str(self.path), os.getpid()).begin(write=False) as transaction:
            data = transaction.get(key.encode("utf-8"))
        if data is None:
            raise BadPicture("the LMDB has no such record")
        return bytes(data)


@functools.lru_cache(maxsize=16)
def _environment(path: str, process: int) -> Any:
    """Opened once in each process: LMDB forbids to go on with one across a fork."""
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise Refusal("an LMDB needs a package: pip install lora_trainer[lmdb]") from error
    try:
        return lmdb.open(path, readonly=True, lock=False, readahead=False, meminit=False, max_readers=256)
    except lmdb.Error as error:
        raise Refusal(f"{path}: cannot be opened as an LMDB ({error})") from error
