"""Put a folder of pictures into one LMDB as BasicSR lays it out, for `io_backend` lmdb.

python -m tools.make_lmdb data/hr data/hr.lmdb
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_trainer.atomic import staged_folder
from lora_trainer.data.images import BadPicture, size_px
from lora_trainer.data.lmdb_folder import LONGEST_KEY, META
from lora_trainer.data.pairs import picture_files
from lora_trainer.errors import Refusal

ROOM = 1.2  # an LMDB takes more than its files
AT_ONCE = 256  # pictures in a transaction, which LMDB holds in memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a use or a picture that is refused."""
    parser = argparse.ArgumentParser(prog="make_lmdb", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, help="the folder of pictures")
    parser.add_argument("target", type=Path, help="the .lmdb folder to write")
    options = parser.parse_args(arguments)
    try:
        count = _write(options.source, options.target)
    except Refusal as refusal:
        print("\n".join(refusal.problems), file=sys.stderr)
        return refusal.exit_status
    print(f"{options.target}: {count} pictures")
    return 0


def _write(source: Path, target: Path) -> int:
    """Gives the number of pictures. Raises Refusal."""
    if target.suffix != ".lmdb":
        raise Refusal(f"{target}: the name of an LMDB of pictures ends in .lmdb")
    if target.exists():
        raise Refusal(f"{target}: exists already; remove it or give another name")
    files = picture_files(source)
    _refuse_bad_keys(files)
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise Refusal("make_lmdb needs a package: pip install lora_trainer[lmdb]") from error
    from rich.progress import track

    size = int(sum(file.stat().st_size for file in files.values()) * ROOM) + len(files) * 8192 + 2**24
    lines: list[str] = []
    with staged_folder(target) as folder:
        with lmdb.open(str(folder), map_size=size) as environment:
            names = list(files)
            for first in track(range(0, len(names), AT_ONCE), description="writing"):
                with environment.begin(write=True) as transaction:
                    lines += [_put(transaction, name, files[name]) for name in names[first : first + AT_ONCE]]
        (folder / "lock.mdb").unlink(missing_ok=True)  # readers do without
        (folder / META).write_text("".join(lines), encoding="utf-8")
    return len(files)


def _put(transaction: Any, name: str, file: Path) -> str:
    """Store one picture as it is; gives its line of meta_info. Raises Refusal."""
    try:
        data = file.read_bytes()
        height, width = size_px(data)
    except OSError as error:
        raise Refusal(f"{file}: cannot be read ({error.strerror})") from error
    except BadPicture as error:
        raise Refusal(f"{file}: {error}") from error
    transaction.put(_key(name), data)
    return f"{name} ({height},{width},3) 1\n"


def _refuse_bad_keys(files: Mapping[str, Path]) -> None:
    problems = []
    seen: dict[bytes, Path] = {}
    for name, file in files.items():
        key = _key(name)
        if key in seen:
            problems.append(f"{file}: there is another picture of that name, {seen[key]}; rename one of them")
        elif len(key) > LONGEST_KEY:
            problems.append(f"{file}: its name takes {len(key)} bytes, and LMDB takes {LONGEST_KEY}; shorten it")
        seen[key] = file
    if problems:
        raise Refusal(*problems)


def _key(name: str) -> bytes:
    return Path(name).with_suffix("").as_posix().encode("utf-8")


if __name__ == "__main__":
    sys.exit(main())
