"""Upscale pictures with any model that spandrel reads.

python -m tools.upscale --model output/span_4x/span_4x.safetensors --input pictures --output upscaled
python -m tools.upscale --model model.pth --input photo.jpg --output upscaled --tile 256 --fp16
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.errors import Refusal

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SMALLEST_TILE_PX = 32


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 when some pictures could not be done, 2 for a use that is refused."""
    options = _parser().parse_args(arguments)
    try:
        return _upscale_all(options)
    except Refusal as refusal:
        print("\n".join(refusal.problems), file=sys.stderr)
        return refusal.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="upscale", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", required=True, type=Path, help="a .safetensors or .pth file")
    parser.add_argument("--input", required=True, type=Path, help="a picture, or a folder with subfolders")
    parser.add_argument("--output", required=True, type=Path, help="the folder to write to")
    parser.add_argument("--tile", type=int, default=0, help="side of a tile in pixels; 0 is the whole picture")
    parser.add_argument("--overlap", type=int, default=32, help="pixels that tiles see of each other (default 32)")
    parser.add_argument("--fp16", action="store_true", help="half precision, for a GPU")
    parser.add_argument("--bf16", action="store_true", help="bfloat16")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1, mps; the best there is by default")
    parser.add_argument("--format", choices=("png", "webp", "jpg"), default="png", help="of the results (default png)")
    parser.add_argument("--suffix", default="", help="added to the names")
    parser.add_argument("--overwrite", action="store_true", help="do pictures again that are there already")
    return parser


def _upscale_all(options: argparse.Namespace) -> int:
    pictures = list(_pictures(options.input))
    if not pictures:
        raise Refusal(f"{options.input}: there are no pictures ({', '.join(ENDINGS)})")
    import torch
    from rich.progress import track

    from lora_trainer.models.sr_file import network_from_file

    model = network_from_file(options.model)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = torch.float16 if options.fp16 else torch.bfloat16 if options.bf16 else torch.float32
    if dtype == torch.float16 and (device.type == "cpu" or not model.supports_half):
        reason = "a CPU has no use for it" if device.type == "cpu" else f"{model.architecture.name} overflows in it"
        print(f"--fp16: {reason}; float32 is used")
        dtype = torch.float32
    model.to(device, dtype=dtype).eval()
    failed = 0
    for source, place in track(pictures, description=f"{model.architecture.name} {model.scale}x"):
        target = options.output / place.with_name(f"{place.stem}{options.suffix}.{options.format}")
        if target.exists() and not options.overwrite:
            print(f"{target}: there already; --overwrite does it again")
            continue
        try:
            _write(target, _upscaled(model, source, options, device, dtype))
        except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: Pillow's word for some broken PNG files
            print(f"{source}: {error}", file=sys.stderr)
            failed += 1
    print(f"{len(pictures) - failed} pictures in {options.output}" + (f", {failed} failed" if failed else ""))
    return 1 if failed else 0


def _pictures(path: Path) -> Iterator[tuple[Path, Path]]:
    """Each picture and its place below the output folder. Raises Refusal."""
    if path.is_file():
        yield path, Path(path.name)
    elif path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in ENDINGS and file.is_file():
                yield file, file.relative_to(path)
    else:
        raise Refusal(f"{path}: there is no such picture or folder")


def _upscaled(
    model: Any, source: Path, options: argparse.Namespace, device: torch.device, dtype: torch.dtype
) -> Image.Image:
    """The picture, upright; transparency is upscaled by the model too, as a grey picture of its own."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    with Image.open(source) as opened:
        opened.load()
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I") or image.mode == "F":
        print(f"{source.name}: 16 bits a channel are made 8")
        image = Image.fromarray((np.asarray(image, np.float64).clip(0, 65535) / 257).round().astype(np.uint8))
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None

    def enlarge(part: Image.Image) -> np.ndarray:
        pixels = torch.from_numpy(np.array(part.convert("RGB"))).permute(2, 0, 1)[None]
        result = _tiled(model, pixels.to(device, dtype) / 255, options)
        return (result[0].float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()

    done = Image.fromarray(enlarge(image))
    if alpha is not None and options.format != "jpg":
        done.putalpha(Image.fromarray(enlarge(alpha)).convert("L"))
    return done


def _tiled(model: Any, pixels: torch.Tensor, options: argparse.Namespace) -> torch.Tensor:
    """In tiles of the given size, or of half of it again and again where the memory is too small."""
    import torch

    from lora_trainer.models.sr_tiling import upscale_tiled

    tile = options.tile
    while True:
        try:
            return upscale_tiled(model, pixels, model.scale, tile_px=tile, overlap_px=options.overlap)
        except torch.OutOfMemoryError as error:
            smaller = (tile or max(pixels.shape[-2:])) // 2
            if smaller < SMALLEST_TILE_PX:
                raise OSError("the device has too little memory even for small tiles") from error
            torch.cuda.empty_cache()
            print(f"out of memory; going on with --tile {smaller}")
            tile = options.tile = smaller


def _write(path: Path, image: Image.Image) -> None:
    import io

    from lora_trainer.atomic import write_bytes

    buffer = io.BytesIO()
    if path.suffix == ".jpg":
        image.convert("RGB").save(buffer, "JPEG", quality=95)
    else:
        image.save(buffer, "PNG" if path.suffix == ".png" else "WEBP", lossless=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())


if __name__ == "__main__":
    sys.exit(main())
