"""Put a folder of pictures into one LMDB as BasicSR lays it out, for `io_backend` lmdb.

python -m tools.make_lmdb data/hr data/hr.lmdb
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_trainer.atomic import staged_folder
from lora_trainer.errors import Refusal

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
META = "meta_info.txt"
ROOM = 1.2  # an LMDB takes more than its files


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
    files = [file for file in sorted(source.rglob("*")) if file.suffix.lower() in ENDINGS]
    if not files:
        raise Refusal(f"{source}: there are no pictures ({', '.join(ENDINGS)})")
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise Refusal("make_lmdb needs a package: pip install lora_trainer[lmdb]") from error
    from rich.progress import track

    from lora_trainer.data.images import BadPicture, size_px

    size = int(sum(file.stat().st_size for file in files) * ROOM) + len(files) * 8192 + 2**24
    lines = []
    with staged_folder(target) as folder:
        environment = lmdb.open(str(folder), map_size=size)
        with environment.begin(write=True) as transaction:
            for file in track(files, description="writing"):
                data, name = file.read_bytes(), file.relative_to(source)
                try:
                    height, width = size_px(data)
                except BadPicture as error:
                    raise Refusal(f"{file}: {error}") from error
                transaction.put(name.with_suffix("").as_posix().encode("utf-8"), data)
                lines.append(f"{name.as_posix()} ({height},{width},3) 1\n")
        environment.close()
        (folder / META).write_text("".join(lines), encoding="utf-8")
    return len(files)


if __name__ == "__main__":
    sys.exit(main())
