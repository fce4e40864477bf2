"""Which file becomes of which picture, and the text that belongs to it, before any picture is opened.

Imports no PyTorch.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lora_trainer.atomic import write_bytes
from lora_trainer.data.images import BadPicture, Pixels, decode, open_header
from lora_trainer.data.pairs import picture_files
from lora_trainer.errors import Refusal

FORMATS: Mapping[str, Mapping[str, Any]] = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 96, "subsampling": 0},
    "webp": {"format": "WEBP", "lossless": True},
}
ENDINGS = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}
OTHER_ENDINGS = (".bmp", ".gif", ".tif", ".tiff", ".avif", ".jxl", ".heic")
NAMED_AT_MOST = 20
KEEPS_PROFILE = ("P", "RGB", "RGBA")  # the others become RGB, which their profile is not for


@dataclass(frozen=True)
class Result:
    """A picture's name below the folder it was found in, with `/`; its file, and the file to write."""

    name: str
    source: Path
    target: Path


@dataclass(frozen=True)
class Picture:
    """A file's content. `profile` says what its colours mean, for the result to say so too."""

    pixels: Pixels
    profile: bytes | None


def planned_results(source: Path, output: Path, format: str) -> tuple[list[Result], list[str]]:
    """What becomes of a picture, or of all in a folder and below it; and a sentence for each whose result would have
    the name of another one's. `format` is a key of `FORMATS`, or empty for that of the output's name or png.

    Results that lie among the pictures are none of them. Raises Refusal.
    """
    if source.is_file():
        return [_single(source, output, format)], []
    if not source.is_dir():
        raise Refusal(f"{source}: there is no such picture or folder")
    if output.resolve() == source.resolve():
        raise Refusal(f"{output} is the folder of the pictures itself; give another one for the results")
    if output.exists() and not output.is_dir():
        raise Refusal(f"{output} is a file; give a folder for the results of a folder")
    inside = output.resolve()
    found: dict[str, Result] = {}
    clashes = []
    for name, file in picture_files(source).items():
        if not file.is_file() or inside in file.resolve().parents:
            continue
        target = output / Path(name).with_suffix(f".{format or 'png'}")
        first = found.setdefault(os.path.normcase(target), Result(name, file, target))
        if first.source != file:
            clashes.append(f"{file}: its result would be {target.name}, as that of {first.source.name}; rename one")
    if not found:
        raise Refusal(f"{source}: there are no pictures but those in {output}")
    return list(found.values()), clashes


def texts_beside(results: Iterable[Result], folder: Path | None, otherwise: str | None) -> dict[str, str]:
    """Each picture's text by its name: that of the .txt file beside it, or of the same name below the folder.

    Line breaks become blanks. `otherwise` is for pictures without one; where it is None, they are refused by name.
    """
    found: dict[str, str] = {}
    problems = []
    for each in results:
        path = (folder / each.name if folder is not None else each.source).with_suffix(".txt")
        if path.is_file():
            try:
                found[each.name] = " ".join(path.read_text(encoding="utf-8-sig").split())
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{path}: the prompt cannot be read ({error}); save it as UTF-8")
        elif otherwise is None:
            problems.append(f"{each.source}: there is no prompt for it, {path}; write one, or give --prompt for those")
        else:
            found[each.name] = otherwise
    if problems:
        more = len(problems) - NAMED_AT_MOST
        raise Refusal(*problems[:NAMED_AT_MOST], *([f"... and {more} more"] if more > 0 else []))
    return found


def read_with_profile(path: Path) -> Picture:
    """The pixels as `read_picture` gives them. Raises BadPicture."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadPicture(f"cannot be read ({error.strerror})") from error
    with open_header(data) as image:
        profile = image.info.get("icc_profile") if image.mode in KEEPS_PROFILE else None
    return Picture(decode(data), profile)


def write_result(target: Path, picture: Picture, format: str, quality: int | None = None) -> None:
    """Into a folder that may not be there yet, at once as a whole. WebP is lossless where there is no `quality`."""
    how = dict(FORMATS[format])
    if quality is not None:
        how |= {"quality": quality} if format == "jpg" else {"quality": quality, "lossless": False}
    buffer = io.BytesIO()
    Image.fromarray(picture.pixels).save(buffer, icc_profile=picture.profile, **how)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, buffer.getvalue())


def _single(source: Path, output: Path, format: str) -> Result:
    target = output / f"{source.stem}.{format or 'png'}"
    ending = output.suffix.lower()
    if not output.is_dir() and ending in (*ENDINGS, *OTHER_ENDINGS):
        if ending not in ENDINGS:
            raise Refusal(f"{output}: results are written as {', '.join(FORMATS)}; give one of these endings")
        if format and ENDINGS[ending] != format:
            raise Refusal(f"{output}: the name says {ENDINGS[ending]} and --format says {format}; leave out one")
        target = output
    if output.is_file() and target != output:
        raise Refusal(f"{output} is a file; give a folder, or a name that ends with {', '.join(ENDINGS)}")
    if target.resolve() == source.resolve():
        raise Refusal(f"{source} would be replaced by its own result; give another name or folder")
    return Result(source.name, source, target)


def format_of(result: Result) -> str:
    """A key of `FORMATS`."""
    return ENDINGS[result.target.suffix.lower()]
