"""Cut large pictures into overlapping squares, which a loader reads much faster.

python -m tools.extract_subimages --input data/hr --output data/hr_sub --size 480 --step 240
With --scale 4 the low-resolution partners are cut at the same places; --size and --step stay as they are.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from lora_trainer.atomic import write_bytes
from lora_trainer.data.images import BadPicture, read_picture
from lora_trainer.data.pairs import picture_files
from lora_trainer.errors import Refusal


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a use or a picture that is refused."""
    parser = argparse.ArgumentParser(prog="extract_subimages", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--input", required=True, type=Path, help="the folder of pictures")
    parser.add_argument("--output", required=True, type=Path, help="the folder to write to")
    parser.add_argument("--size", type=int, default=480, help="side of a square in pixels (default 480)")
    parser.add_argument("--step", type=int, default=240, help="from one square to the next (default 240)")
    parser.add_argument("--scale", type=int, default=1, help="for the low resolution: how many times smaller it is")
    parser.add_argument("--threads", type=int, default=4, help="pictures at a time (default 4)")
    options = parser.parse_args(arguments)
    try:
        count = _extract(options)
    except Refusal as refusal:
        print("\n".join(refusal.problems), file=sys.stderr)
        return refusal.exit_status
    print(f"{count} squares in {options.output}")
    return 0


def starts(length: int, size: int, step: int) -> list[int]:
    """Where squares begin along a side; the last one ends at the border."""
    if length <= size:
        return [0]
    return [*range(0, length - size, step), length - size]


def _extract(options: argparse.Namespace) -> int:
    if min(options.size, options.step, options.scale) < 1:
        raise Refusal("--size, --step and --scale must be at least 1")
    if options.size % options.scale or options.step % options.scale:
        raise Refusal(f"--size {options.size} and --step {options.step} must be multiples of --scale {options.scale}")
    if options.output.exists() and (not options.output.is_dir() or any(options.output.iterdir())):
        raise Refusal(f"{options.output}: there is something already; remove it or give another --output")
    files = picture_files(options.input)
    _refuse_twins(files)
    from rich.progress import track

    size, step = options.size // options.scale, options.step // options.scale
    with ThreadPoolExecutor(max(1, options.threads)) as pool:
        work = pool.map(lambda name: _cut(files[name], Path(name), options.output, size, step), files)
        return sum(track(work, description="cutting", total=len(files)))


def _refuse_twins(files: Mapping[str, Path]) -> None:
    """Two pictures whose squares would have the same names."""
    seen: dict[Path, Path] = {}
    for name, file in files.items():
        twin = seen.setdefault(Path(name).with_suffix(""), file)
        if twin != file:
            raise Refusal(f"{file}: there is another picture of that name, {twin}; rename one of them")


def _cut(file: Path, place: Path, folder: Path, size: int, step: int) -> int:
    """Write the squares of one picture as PNG: name_s001.png and so on. Gives their number."""
    try:
        pixels = read_picture(file)
    except BadPicture as error:
        raise Refusal(f"{file}: {error}") from error
    target = folder / place.parent
    target.mkdir(parents=True, exist_ok=True)
    count = 0
    for count, (top, left) in enumerate(_corners(pixels.shape[0], pixels.shape[1], size, step), 1):
        buffer = io.BytesIO()
        Image.fromarray(pixels[top : top + size, left : left + size]).save(buffer, "PNG")
        write_bytes(target / f"{place.stem}_s{count:03d}.png", buffer.getvalue())
    return count


def _corners(height: int, width: int, size: int, step: int) -> Iterator[tuple[int, int]]:
    for top in starts(height, size, step):
        for left in starts(width, size, step):
            yield top, left


if __name__ == "__main__":
    sys.exit(main())
