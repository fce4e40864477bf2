"""Upscale pictures with any model that spandrel reads.

python -m tools.upscale --model output/span_4x/span_4x.safetensors --input pictures --output upscaled
python -m tools.upscale --model model.pth --input photo.jpg --output upscaled --tile 256 --fp16
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.errors import Refusal

if TYPE_CHECKING:
    import torch
    from PIL import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
TILE_PX, OVERLAP_PX, SMALLEST_TILE_PX = 512, 32, 32
PNG_DEPTH_AT, TIFF_DEPTH = 24, 258
KEEPS_PROFILE = ("L", "LA", "P", "RGB", "RGBA")  # the others are converted to other colours than it is for
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "defaultcpuallocator")
SAVED_AS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP", "lossless": True},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 when some pictures could not be done, 2 for a use that is refused."""
    options = _parser().parse_args(arguments)
    try:
        return _upscale_all(options)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="upscale", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", required=True, type=Path, help="a .safetensors or .pth file")
    parser.add_argument("--input", required=True, type=Path, help="a picture, or a folder with subfolders")
    parser.add_argument("--output", required=True, type=Path, help="the folder to write to")
    parser.add_argument("--tile", type=_pixels, help=f"side of a tile, 0 for whole pictures (default {TILE_PX})")
    parser.add_argument(
        "--overlap", type=_pixels, default=OVERLAP_PX, help=f"what tiles see of each other (default {OVERLAP_PX})"
    )
    half = parser.add_mutually_exclusive_group()
    half.add_argument("--fp16", action="store_true", help="half precision, for a GPU")
    half.add_argument("--bf16", action="store_true", help="bfloat16")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1, mps; by default cuda where there is one")
    parser.add_argument("--format", choices=tuple(SAVED_AS), default="png", help="of the results (default png)")
    parser.add_argument("--suffix", default="", help="added to the names, for example _x4")
    parser.add_argument("--overwrite", action="store_true", help="do pictures again that are there already")
    return parser


def _pixels(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is less than 0")
    return number


@dataclass(frozen=True)
class Job:
    """A picture's file and the file to write."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Picture:
    """A file's content: upright, 8 bits a channel, grey or RGB; `alpha` is None where nothing is transparent."""

    colours: Image.Image
    alpha: Image.Image | None
    profile: bytes | None


class Upscaler:
    """A model on its device, called with pixels; its tiles become smaller when the memory turns out too small."""

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype, tile_px: int, overlap_px: int) -> None:
        self.model = model.to(device, dtype=dtype).eval()
        self.device, self.dtype = device, dtype
        self.tile_px, self.overlap_px = tile_px, overlap_px
        self.name = f"{model.architecture.name} {model.scale}x"

    def __call__(self, image: Image.Image) -> Image.Image:
        """A grey or RGB picture, enlarged, in the same mode. A network of one channel does each channel by itself."""
        import numpy as np
        import torch
        from PIL import Image

        grey = self.model.input_channels == 1
        mode = image.mode if grey else "RGB"
        pixels = torch.from_numpy(np.atleast_3d(np.array(image.convert(mode)))).permute(2, 0, 1)[None]
        planes = torch.split(pixels, 1, dim=1) if grey else (pixels,)
        result = torch.cat([self._tiled(plane) for plane in planes], 1)[0].permute(1, 2, 0).numpy()
        return Image.fromarray(result[..., 0] if result.shape[-1] == 1 else result).convert(image.mode)

    def _tiled(self, pixels: torch.Tensor) -> torch.Tensor:
        """(1, c, h, w) of 0 to 255 -> the same enlarged, on the CPU; again with half the tile when memory is short."""
        import torch

        from lora_trainer.models.sr_tiling import upscale_tiled

        needs = self.model.size_requirements
        while True:
            try:
                return upscale_tiled(
                    self._enlarged, pixels, self.model.scale, tile_px=self.tile_px, overlap_px=self.overlap_px,
                    multiple=needs.multiple_of, minimum_px=needs.minimum,
                )  # fmt: skip
            except RuntimeError as error:
                if not any(words in str(error).lower() for words in NO_MEMORY):
                    raise
                longest = max(pixels.shape[-2:])
                side = min(self.tile_px or longest, longest)
                if side // 2 < SMALLEST_TILE_PX:
                    raise MemoryError(f"{self.device} has too little memory even for tiles of {side} pixels") from error
                self.tile_px = side // 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()  # here, where the exception no longer holds its tensors
            print(f"out of memory; going on with --tile {self.tile_px}")

    def _enlarged(self, tile: torch.Tensor) -> torch.Tensor:
        """A tile of bytes, which are what waits in memory for the other tiles."""
        import torch

        result: torch.Tensor = self.model(tile.to(self.device, self.dtype) / 255).float()
        if not result.isfinite().all():
            halved = " in half precision; leave out --fp16 or --bf16" if self.dtype != torch.float32 else ""
            raise ValueError(f"the network makes NaN of it{halved}")
        return (result.clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def _upscale_all(options: argparse.Namespace) -> int:
    from rich.progress import track

    jobs, clashes = _jobs(options)
    for note in _notes(jobs, options.format):
        print(note)
    upscaler = _upscaler(options)
    for clash in clashes:
        print(clash, file=sys.stderr)
    waiting = [job for job in jobs if options.overwrite or not job.target.exists()]
    failed = len(clashes)
    for job in track(waiting, description=upscaler.name, disable=not waiting):
        try:
            _do(job, upscaler, options.format)
        except Exception as error:  # a person's file, or a network that does not take it: the others go on
            print(f"{job.source}: {_first_line(error)}", file=sys.stderr)
            failed += 1
    there = len(jobs) - len(waiting)
    done = len(jobs) + len(clashes) - failed - there
    told = [f"{done} pictures in {options.output}"]
    told += [f"{there} were there already (--overwrite does them again)"] if there else []
    told += [f"{failed} failed"] if failed else []
    print(", ".join(told))
    return 1 if failed else 0


def _jobs(options: argparse.Namespace) -> tuple[list[Job], list[str]]:
    """What to do, and a sentence for each picture whose result would have another one's name. Raises Refusal."""
    source, output = options.input, options.output
    if source.is_file():
        found, base = [source], source.parent
    elif source.is_dir():
        if output.resolve() == source.resolve():
            raise Refusal(f"--output {output} is the folder of the pictures itself; give another one")
        inside = output.resolve()
        files = (file for file in sorted(source.rglob("*")) if file.suffix.lower() in ENDINGS and file.is_file())
        found, base = [file for file in files if inside not in file.resolve().parents], source
    else:
        raise Refusal(f"{source}: there is no such picture or folder")
    if not found:
        raise Refusal(f"{source}: there are no pictures ({', '.join(ENDINGS)})")
    if output.exists() and not output.is_dir():
        raise Refusal(f"--output {output} is a file; give a folder")
    jobs: dict[str, Job] = {}
    clashes = []
    for file in found:
        place = file.relative_to(base)
        target = output / place.with_name(f"{place.stem}{options.suffix}.{options.format}")
        if target.resolve() == file.resolve():
            raise Refusal(f"{file} would be replaced by its own result; give another --output or a --suffix")
        first = jobs.setdefault(os.path.normcase(target), Job(file, target))
        if first.source != file:
            clashes.append(f"{file}: its result would be {target.name}, as that of {first.source.name}; rename one")
    return list(jobs.values()), clashes


def _notes(jobs: Sequence[Job], format: str) -> list[str]:
    """What the results will not have of their sources, from the files' headers alone."""
    deep, clear = [], []
    for job in jobs:
        try:
            is_deep, is_clear = _depth_and_alpha(job.source)
        except Exception:  # it is named when its turn comes
            continue
        deep += [job.source.name] if is_deep else []
        clear += [job.source.name] if is_clear and format == "jpg" else []
    notes = ((deep, "16 bits a channel are made 8"), (clear, "jpg has no transparency; it is laid on white"))
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {text}" for names, text in notes if names
    ]


def _depth_and_alpha(path: Path) -> tuple[bool, bool]:
    """Whether a file has 16 bits a channel, which Pillow opens as 8 without a word, and whether it has alpha."""
    from PIL import Image

    from lora_trainer.data.images import SIXTEEN_BIT

    with path.open("rb") as file:
        start = file.read(PNG_DEPTH_AT + 1)
    with Image.open(path) as image:
        depth = getattr(image, "tag_v2", {}).get(TIFF_DEPTH, 8) if image.format == "TIFF" else 8
        deep = image.mode in SIXTEEN_BIT or max(depth if isinstance(depth, tuple) else (depth,)) > 8
        return deep or (image.format == "PNG" and start[-1] == 16), image.has_transparency_data


def _upscaler(options: argparse.Namespace) -> Upscaler:
    """The model as the options want it. Raises Refusal."""
    import torch

    from lora_trainer.engine.chosen_device import chosen_device
    from lora_trainer.models.sr_file import network_from_file

    model = network_from_file(options.model)
    name, channels = model.architecture.name, (model.input_channels, model.output_channels)
    if channels not in ((1, 1), (3, 3)):
        raise Refusal(f"{options.model}: {name} makes {channels[1]} channels of {channels[0]}; give a network for RGB")
    device = chosen_device(options.device, "--device")
    dtype = torch.float32
    if options.fp16 and (device.type == "cpu" or not model.supports_half):
        reason = "a CPU has no use for it" if device.type == "cpu" else f"{name} overflows in it"
        print(f"--fp16: {reason}; float32 is used")
    elif options.bf16 and not model.supports_bfloat16:
        print(f"--bf16: {name} does not work in it; float32 is used")
    elif options.fp16 or options.bf16:
        dtype = torch.float16 if options.fp16 else torch.bfloat16
    tile_px = TILE_PX if options.tile is None else options.tile
    if tile_px and model.tiling.name == "INTERNAL":
        print(f"{name} needs the whole picture and is not called with tiles")
        tile_px = 0
    return Upscaler(model, device, dtype, tile_px, options.overlap)


def _do(job: Job, upscaler: Upscaler, format: str) -> None:
    """Transparency is upscaled by the model too, as a grey picture of its own."""
    from PIL import Image

    from lora_trainer.atomic import write_bytes

    picture = _read(job.source)
    done = upscaler(picture.colours)
    if picture.alpha is not None:
        alpha = upscaler(picture.alpha)
        if format == "jpg":
            done = Image.composite(done, Image.new(done.mode, done.size, "white"), alpha)
        else:
            done.putalpha(alpha)
    buffer = io.BytesIO()
    done.save(buffer, icc_profile=picture.profile, **SAVED_AS[format])
    job.target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(job.target, buffer.getvalue())


def _read(path: Path) -> Picture:
    import numpy as np
    from PIL import Image, ImageOps

    from lora_trainer.data.images import SIXTEEN_BIT, open_header

    image = ImageOps.exif_transpose(open_header(path.read_bytes()))
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 bits a channel")
    profile = image.info.get("icc_profile") if image.mode in KEEPS_PROFILE else None
    if image.mode in SIXTEEN_BIT:
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # convert() would clip at 255
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if alpha is not None and alpha.getextrema() == (255, 255):
        alpha = None
    return Picture(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"), alpha, profile)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
