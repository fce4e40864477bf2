"""Files in the folders of a data set that no training reads, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from lora_trainer.data.folders import EXTENSIONS

PICTURES = (".gif", ".tif", ".tiff", ".heic", ".heif", ".jfif", ".jxl", ".avif", ".psd", ".tga", ".jp2", ".svg")
WITHOUT_PICTURE = "no picture of its name is beside it"
DEEPER = "it lies in a folder inside the folder, which is not looked into"
LOOSE = "it lies outside the folders that are read"


def strays(
    folders: Iterable[Path], read: Collection[Path], caption_endings: Collection[str], root: Path | None = None
) -> Iterator[tuple[str, str]]:
    """(file, reason) of captions without a picture, and of pictures that are not read, in folders that are not looked
    into and in a `root` whose folders alone are."""
    folders = list(folders)
    known = {path.resolve() for path in read}
    for folder in folders:
        stems = {path.stem for path in folder.iterdir() if is_picture(path)}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in caption_endings and path.is_file() and path.stem not in stems:
                yield _name(path, folder.parent), WITHOUT_PICTURE
    places = [root] if root is not None and root.is_dir() else folders
    for path in sorted({path for place in places for path in place.rglob("*") if not _is_hidden(path, place)}):
        if is_picture(path) and path.resolve() not in known and path.is_file():
            yield _name(path, root.parent if root is not None else Path()), _reason(path, folders)


def _name(path: Path, above: Path) -> str:
    return path.relative_to(above).as_posix() if path.is_relative_to(above) else str(path)


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in (*EXTENSIONS, *PICTURES)


def _is_hidden(path: Path, place: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(place).parts)


def _reason(path: Path, folders: Collection[Path]) -> str:
    if path.suffix.lower() not in EXTENSIONS:
        return f"{path.suffix} is not among the kinds that are read ({', '.join(EXTENSIONS)})"
    return DEEPER if any(folder in path.parent.parents for folder in folders) else LOOSE
