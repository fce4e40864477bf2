"""Make pairs for a restoration from clean pictures: blur, haze, low light, rain and snow.

python -m tools.make_degradations photos data/train
python -m tools.make_degradations photos data/train --types Rain Snow --strength 0.4 0.8 --variants 3 --short-side 512
The pairs are data/train/Rain/LQ/name.png and data/train/Rain/GT/name.png and so on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from lora_trainer.atomic import staged_folder
from lora_trainer.data.images import BadPicture, Pixels, read_picture
from lora_trainer.data.pairs import picture_files
from lora_trainer.data.synthetic_degradations import DEGRADATIONS, degraded_picture
from lora_trainer.draws import python_random
from lora_trainer.errors import Refusal

LEAST_PX = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a use or a picture that is refused."""
    options = _parser().parse_args(arguments)
    try:
        count = _make(options)
    except Refusal as refusal:
        print("\n".join(refusal.problems), file=sys.stderr)
        return refusal.exit_status
    print(f"{options.output}: {count} pairs of {', '.join(options.types)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make_degradations", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("input", type=Path, help="the folder of clean pictures")
    parser.add_argument("output", type=Path, help="the folder to write to, which must not be there yet")
    parser.add_argument("--types", nargs="+", choices=tuple(DEGRADATIONS), default=list(DEGRADATIONS))
    parser.add_argument(
        "--strength", nargs=2, type=float, default=[0.4, 1.0], metavar=("LEAST", "MOST"), help="0 to 1 (default 0.4 1)"
    )
    parser.add_argument("--variants", type=int, default=1, help="pairs of each picture and type (default 1)")
    parser.add_argument("--short-side", type=int, default=0, help="to make larger pictures smaller first, in pixels")
    parser.add_argument("--seed", type=int, default=0, help="another one gives other degradations (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="pictures at a time (default 2)")
    return parser


def _make(options: argparse.Namespace) -> int:
    """Gives the number of pairs. Raises Refusal."""
    least, most = options.strength
    if not 0 <= least <= most <= 1:
        raise Refusal(f"--strength {least:g} {most:g}: write two numbers from 0 to 1, the smaller one first")
    if options.variants < 1 or options.threads < 1:
        raise Refusal("--variants and --threads must be at least 1")
    if options.short_side and options.short_side < LEAST_PX:
        raise Refusal(f"--short-side {options.short_side}: must be at least {LEAST_PX}")
    if options.output.exists():
        raise Refusal(f"{options.output}: there is something already; remove it or give another folder")
    pictures = _pictures(options.input)
    from rich.progress import track

    with staged_folder(options.output) as folder, ThreadPoolExecutor(options.threads) as pool:
        work = pool.map(lambda name: _make_pairs(pictures[name], name, folder, options), pictures)
        try:
            return sum(track(work, description="degrading", total=len(pictures)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _pictures(folder: Path) -> Mapping[str, Path]:
    """By their path without ending. Raises Refusal that names all that cannot be used."""
    found: dict[str, Path] = {}
    problems = []
    for name, file in picture_files(folder).items():
        stem = Path(name).with_suffix("").as_posix()
        if stem in found:
            problems.append(f"{file}: there is another picture of that name, {found[stem]}; rename one of them")
        found[stem] = file
    if problems:
        raise Refusal(*problems)
    return found


def _make_pairs(file: Path, name: str, folder: Path, options: argparse.Namespace) -> int:
    pixels = _clean(file, options.short_side)
    count = 0
    for kind in options.types:
        for variant in range(1, options.variants + 1):
            key = (options.seed, name, kind, variant)
            strength = python_random(*key, "strength").uniform(*options.strength)
            place = f"{name}_{variant}.png" if options.variants > 1 else f"{name}.png"
            _save(pixels, folder / kind / "GT" / place)
            _save(degraded_picture(pixels, kind, strength, *key), folder / kind / "LQ" / place)
            count += 1
    return count


def _clean(file: Path, short_side_px: int) -> Pixels:
    try:
        pixels = read_picture(file)
    except BadPicture as error:
        raise Refusal(f"{file}: {error}") from error
    height, width = pixels.shape[:2]
    least = min(height, width)
    if least < LEAST_PX:
        raise Refusal(f"{file}: {width} x {height} pixels; at least {LEAST_PX} are needed either way")
    if not 0 < short_side_px < least:
        return pixels
    size = (round(width * short_side_px / least), round(height * short_side_px / least))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _save(pixels: Pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


if __name__ == "__main__":
    sys.exit(main())
