"""Draw images and videos with a GAN's snapshot, one of ours or an official .pkl.

python -m tools.generate snapshot.safetensors --seeds 0-15 --trunc 0.7 --grid 4x4 --output images
python -m tools.generate stylegan2.pkl --seeds 1,5,9 --class 3 --noise random --output images
python -m tools.generate snapshot.safetensors --seeds 0-7 --video flight.mp4 --frames 60 --grid 2x1
python -m tools.generate creps.safetensors --seeds 0-3 --scale 4 --output large
python -m tools.generate stylegan3.safetensors --seeds 2 --translate 0.3,-0.1 --rotate 30 --output moved
python -m tools.generate snapshot.safetensors --mix-rows 85,100 --mix-columns 55,82,21 --styles 0-6 --output mixed
python -m tools.generate snapshot.safetensors --projected projected_w.npz --output images
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.errors import Refusal

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from lora_trainer.models.gan.generation import Look, TrainedGenerator

LARGEST_SEED = 2**32 - 1  # that numpy's RandomState takes
MOST_NUMBERS = 1_000_000
FRAMES, FPS, BATCH = 60, 30.0, 4
NOISES = ("const", "random", "none")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a use that is refused."""
    options = _parser().parse_args(arguments)
    try:
        _generate(options)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.exit_status
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="generate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("snapshot", type=Path, help="a .safetensors snapshot of ours, or an official .pkl")
    what = parser.add_argument_group("what is drawn")
    what.add_argument("--seeds", type=_numbers, help="such as 1,3,5-8; the images are those of StyleGAN's own programs")
    what.add_argument("--projected", type=Path, help="a .npz file with `w`, in place of seeds")
    what.add_argument("--mix-rows", type=_numbers, help="style mixing: the seeds of the rows")
    what.add_argument("--mix-columns", type=_numbers, help="and of the columns")
    what.add_argument("--styles", type=_numbers, default=_numbers("0-6"), help="layers from the columns (default 0-6)")
    what.add_argument("--class", type=int, dest="label", help="for a network with classes, from 0")
    what.add_argument("--trunc", type=float, default=1.0, help="towards the mean image, which is 0 (default 1)")
    what.add_argument("--cutoff", type=_count, help="only so many first layers are truncated")
    how = parser.add_argument_group("what some networks can do")
    how.add_argument("--noise", choices=NOISES, default="const", help="StyleGAN2: fine details (default const)")
    how.add_argument("--scale", type=float, help="CREPS: so many times as large as it was trained, such as 2 or 1.5")
    how.add_argument("--translate", type=_pair, help="StyleGAN3: right,down in parts of the side: --translate=-0.1,0.3")
    how.add_argument("--rotate", type=float, help="StyleGAN3: degrees, counterclockwise")
    where = parser.add_argument_group("where it goes")
    where.add_argument("--output", type=Path, help="the folder to write to: seed0001.png and so on")
    where.add_argument("--grid", type=_grid, help="also a sheet of columns x rows, such as 4x2; of a video the cells")
    where.add_argument("--video", type=Path, help="a path from seed to seed: .mp4, .gif, .webp, .png, or a folder")
    where.add_argument("--frames", type=_count, default=FRAMES, help=f"from one seed to the next (default {FRAMES})")
    where.add_argument("--fps", type=float, default=FPS, help=f"frames a second (default {FPS:g})")
    run = parser.add_argument_group("how it runs")
    run.add_argument("--batch", type=_count, default=BATCH, help=f"images at a time (default {BATCH})")
    run.add_argument("--device", default="", help="cpu, cuda, cuda:1, mps; by default cuda where there is one")
    run.add_argument("--fp32", action="store_true", help="no half precision on a GPU")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    """1,3,5-8 -> 1, 3, 5, 6, 7, 8."""
    found: list[int] = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= LARGEST_SEED:
            raise argparse.ArgumentTypeError(f'"{part}" is neither a number from 0 nor a range such as 5-8')
        if last - first + len(found) >= MOST_NUMBERS:
            raise argparse.ArgumentTypeError(f"more than {MOST_NUMBERS} numbers")
        found += range(first, last + 1)
    return tuple(found)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1")
    return int(text)


def _pair(text: str) -> tuple[float, float]:
    try:
        right, down = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is not two numbers such as 0.3,-0.1') from None
    return right, down


def _grid(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text.casefold())
    if match is None:
        raise argparse.ArgumentTypeError(f'"{text}" is not columns x rows such as 4x2')
    return int(match[1]), int(match[2])


def _generate(options: argparse.Namespace) -> None:
    _check(options)
    from lora_trainer.engine.chosen_device import chosen_device
    from lora_trainer.models.gan.generation import read_generator

    generator = read_generator(options.snapshot, chosen_device(options.device, "--device"))
    look = _look(options, generator)
    if options.mix_rows:
        _mix(options, generator, look)
        return
    names, ws = _named_ws(options, generator)
    if options.video:
        _film(options, generator, look, ws)
    if options.output:
        _draw(options, generator, look, names, ws)


def _check(options: argparse.Namespace) -> None:
    """What is wrong with the options themselves. Raises Refusal."""
    mixes = options.mix_rows or options.mix_columns
    if mixes and not (options.mix_rows and options.mix_columns):
        raise Refusal("--mix-rows and --mix-columns are given together")
    sources = [bool(options.seeds), bool(options.projected), bool(mixes)]
    if sum(sources) != 1:
        raise Refusal("say what to draw with one of --seeds, --projected, and --mix-rows with --mix-columns")
    if not (options.output or options.video):
        raise Refusal("say where to with --output FOLDER or --video FILE")
    if mixes and (options.video or not options.output):
        raise Refusal("style mixing draws a sheet; give --output and leave out --video")
    if options.output and options.output.is_file():
        raise Refusal(f"--output {options.output} is a file; give a folder")
    if not 0 < options.fps <= 1000:
        raise Refusal(f"--fps {options.fps:g}: write 1 to 1000")
    if options.video:
        from tools.moving_pictures import check_moving

        check_moving(options.video)


def _look(options: argparse.Namespace, generator: TrainedGenerator) -> Look:
    """Raises Refusal for what the network cannot do."""
    from lora_trainer.models.gan.generation import Look, picture_transform

    cfg = generator.cfg
    if options.noise != "const" and cfg != "stylegan2":
        raise Refusal(f"--noise {options.noise}: only StyleGAN2 has noise, and the snapshot is of {cfg}; leave it out")
    points, transform = None, None
    if options.scale is not None:
        if cfg != "creps":
            raise Refusal(f"--scale: only CREPS draws other sizes, and the snapshot is of {cfg}; leave it out")
        points = round(options.scale * generator.resolution) if 0 < options.scale < 1000 else 0
        if points < 1:
            raise Refusal(f"--scale {options.scale:g}: write a number above 0, such as 2")
    if options.translate is not None or options.rotate is not None:
        if not cfg.startswith("stylegan3"):
            raise Refusal(
                f"only StyleGAN3 shifts and turns, and the snapshot is of {cfg}; leave out --translate, --rotate"
            )
        transform = picture_transform(*(options.translate or (0.0, 0.0)), options.rotate or 0.0)
    if (options.trunc != 1 or options.cutoff is not None) and cfg == "r3gan":
        raise Refusal("r3gan has no mean to be truncated to; leave out --trunc and --cutoff")
    return Look(options.noise, points, transform, options.fp32)


def _named_ws(options: argparse.Namespace, generator: TrainedGenerator) -> tuple[list[str], torch.Tensor]:
    if options.projected:
        ws = _projected(options.projected, generator)
        return [f"proj{number:02d}" for number in range(len(ws))], ws
    return [f"seed{seed:04d}" for seed in options.seeds], _ws_of(options.seeds, options, generator)


def _ws_of(seeds: Sequence[int], options: argparse.Namespace, generator: TrainedGenerator) -> torch.Tensor:
    from lora_trainer.models.gan.generation import seed_latents

    label = generator.label(options.label, str(options.snapshot))
    return generator.ws(seed_latents(seeds, generator.network.z_dim), label, options.trunc, options.cutoff)


def _projected(path: Path, generator: TrainedGenerator) -> torch.Tensor:
    """(n, l, w_dim). Raises Refusal."""
    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as file:
            found = np.asarray(file["w"], np.float32)
    except Exception as error:  # whatever a person's file leads to
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise Refusal(f"--projected {path} cannot be read as .npz with `w` ({reason})") from error
    wanted = (generator.network.num_ws, generator.network.w_dim)
    if found.ndim != 3 or found.shape[1:] != wanted:
        raise Refusal(
            f"--projected {path}: its w is {found.shape}, and the network takes (n, {wanted[0]}, {wanted[1]})"
        )
    return torch.from_numpy(found)


def _painted(
    generator: TrainedGenerator, look: Look, ws: torch.Tensor, keys: Sequence[int], batch: int, doing: str
) -> Iterator[torch.Tensor]:
    """uint8 (c, h, w), one after another."""
    from rich.progress import track

    starts = range(0, len(ws), batch)
    for start in track(starts, description=doing):
        try:
            yield from generator.paint(ws[start : start + batch], look, keys[start : start + batch])
        except RuntimeError as error:
            if "memory" not in str(error).lower():
                raise
            raise Refusal(f"{generator.device} has too little memory for {batch} images; lower --batch") from error


def _picture(pixels: torch.Tensor) -> Image.Image:
    from PIL import Image

    values = pixels.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)


def _draw(
    options: argparse.Namespace, generator: TrainedGenerator, look: Look, names: Sequence[str], ws: torch.Tensor
) -> None:
    import torch

    from lora_trainer.models.gan.generation import sheet

    columns, rows = options.grid or (0, 0)
    shown = []
    keys = options.seeds or range(len(names))
    for name, pixels in zip(names, _painted(generator, look, ws, keys, options.batch, "images"), strict=True):
        _write(options.output / f"{name}.png", pixels)
        if len(shown) < columns * rows:
            shown.append(pixels)
    if shown:
        _write(options.output / "grid.png", sheet(torch.stack(shown), columns))
    print(f"{len(names)} images in {options.output}")


def _film(options: argparse.Namespace, generator: TrainedGenerator, look: Look, ws: torch.Tensor) -> None:
    from lora_trainer.models.gan.generation import interpolated, sheet
    from tools.moving_pictures import write_moving

    columns, rows = options.grid or (1, 1)
    cells = columns * rows
    if len(ws) % cells:
        raise Refusal(
            f"--grid {columns}x{rows}: {len(ws)} images cannot be shared out evenly among {cells} cells; give a "
            f"multiple of {cells}"
        )
    length = len(ws) // cells * options.frames
    paths = [interpolated(part, options.frames) for part in ws.split(len(ws) // cells)]
    keys = range(cells)  # noise that stays with a cell

    def frames() -> Iterator[Image.Image]:
        import torch

        moments = torch.stack(paths, 1).flatten(0, 1)  # (frames * cells, l, d)
        cell: list[Any] = []
        for pixels in _painted(generator, look, moments, list(keys) * length, options.batch, "frames"):
            cell.append(pixels)
            if len(cell) == cells:
                yield _picture(sheet(torch.stack(cell), columns))
                cell = []

    write_moving(options.video, frames(), options.fps)
    print(f"{options.video}: {length} frames, {length / options.fps:.1f} seconds")


def _mix(options: argparse.Namespace, generator: TrainedGenerator, look: Look) -> None:
    """Each row's image with some layers of each column's, and a sheet with the originals along its border."""
    import torch

    from lora_trainer.models.gan.generation import mixed_styles, sheet

    layers = generator.network.num_ws
    if max(options.styles) >= layers:
        raise Refusal(f"--styles: the network has the layers 0 to {layers - 1}, not {max(options.styles)}")
    seeds = (*options.mix_rows, *options.mix_columns)
    ws = _ws_of(seeds, options, generator)
    count = len(options.mix_rows)
    mixed = mixed_styles(ws[:count], ws[count:], options.styles)
    everything = torch.cat([ws, mixed.flatten(0, 1)])
    keys = [*seeds, *(row for row in options.mix_rows for _ in options.mix_columns)]
    painted = list(_painted(generator, look, everything, keys, options.batch, "images"))
    originals, results = painted[: len(seeds)], painted[len(seeds) :]
    lines = [torch.zeros_like(originals[0]), *originals[count:]]
    for row, seed in enumerate(options.mix_rows):
        own = results[row * len(options.mix_columns) : (row + 1) * len(options.mix_columns)]
        lines += [originals[row], *own]
        for column, pixels in zip(options.mix_columns, own, strict=True):
            _write(options.output / f"{seed}-{column}.png", pixels)
    _write(options.output / "grid.png", sheet(torch.stack(lines), len(options.mix_columns) + 1))
    print(f"{len(results)} mixed images in {options.output}")


def _write(path: Path, pixels: torch.Tensor) -> None:
    from lora_trainer.atomic import write_bytes
    from tools.moving_pictures import png

    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, png(_picture(pixels)))


if __name__ == "__main__":
    sys.exit(main())
