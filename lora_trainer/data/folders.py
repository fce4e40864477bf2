"""Find the pictures of a data set that is laid out as `<repeats>_<name>` folders, with their captions."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from PIL import features

from lora_trainer.errors import Refusal

log = logging.getLogger(__name__)

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp") + ((".avif",) if features.check("avif") else ())
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Picture:
    """One picture file as the folders describe it; the file itself has not been opened yet.

    ``name`` is the path below the data set's folder, written with ``/`` on every system: the picture's stable identity.
    """

    path: Path
    name: str
    folder: str
    repeats: int
    caption: str


def read_folders(
    train_data_dir: Path, caption_extension: str, all_lines: bool = False, key: str = "train_data_dir"
) -> tuple[Picture, ...]:
    """The pictures of every `<repeats>_<name>` subfolder, sorted by name.

    A picture's caption is the first line of the file beside it that has the same stem and ``caption_extension``, or
    with ``all_lines`` every line that is not blank, joined by line breaks; without such a file it is the folder's name
    after the first underscore. Folders inside these folders, hidden files, folders with 0 repeats and folders without a
    number are not read.

    Raises Refusal, which lists all problems of the layout and of the caption files at once; `key` is the preset's.
    """
    if not train_data_dir.is_dir():
        found = "is a file" if train_data_dir.exists() else "does not exist"
        what = "training pictures" if key == "train_data_dir" else "pictures"
        raise Refusal(f"{train_data_dir}: the folder of the {what} {found}; check {key}")
    counted = _counted_folders(train_data_dir)
    loose = _picture_files(train_data_dir)
    if not counted:
        raise Refusal(_no_counted_folder(train_data_dir, bool(loose), key))
    if loose:
        log.warning("%s: %d pictures lie outside the numbered folders and are not used", train_data_dir, len(loose))

    pictures: list[Picture] = []
    problems: list[str] = []
    for folder, repeats, tokens in counted:
        files = _picture_files(folder)
        if not files:
            log.warning("%s: no pictures in this folder", folder)
        captions = _captions(files, caption_extension, tokens, all_lines, problems)
        for path, caption in captions.items():
            pictures.append(Picture(path, f"{folder.name}/{path.name}", folder.name, repeats, caption))
    if not pictures and not problems:
        problems.append(
            f"{train_data_dir}: none of its {len(counted)} numbered folders holds a picture "
            f"({', '.join(extension[1:] for extension in EXTENSIONS)})"
        )
    if problems:
        raise Refusal(*problems)
    return tuple(sorted(pictures, key=lambda picture: picture.name))


def _counted_folders(parent: Path) -> list[tuple[Path, int, str]]:
    """(folder, repeats, class tokens) of every subfolder whose name starts with a number of at least 1."""
    counted = []
    for folder in sorted(parent.iterdir(), key=lambda entry: entry.name):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        repeats, tokens = _split_name(folder.name)
        if repeats is None:
            log.warning("%s: ignored, because its name does not start with a number and an underscore", folder)
        elif repeats > 0:
            counted.append((folder, repeats, tokens))
    return counted


def _split_name(name: str) -> tuple[int | None, str]:
    """``10_mychar girl`` is (10, "mychar girl"); a name without a number is (None, "")."""
    number, _, tokens = name.partition("_")
    try:
        return int(number), tokens.strip()
    except ValueError:
        return None, ""


def _picture_files(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and not path.name.startswith("."))
    return sorted((path for path in files if path.is_file()), key=lambda path: path.name)


def _no_counted_folder(folder: Path, has_pictures: bool, key: str) -> str:
    repeats, _ = _split_name(folder.name)
    if has_pictures and repeats is not None:
        return f"{folder}: this is a numbered folder itself; set {key} to its parent, {folder.parent}"
    if has_pictures:
        return f"{folder}: pictures must lie in a subfolder like 10_name, where 10 is how often an epoch repeats them"
    if any(folder.iterdir()):
        return f"{folder}: no subfolder named like 10_name; make one and put the pictures in it"
    return f"{folder}: the folder is empty; put the pictures in a subfolder like 10_name"


def _captions(files: list[Path], extension: str, tokens: str, all_lines: bool, problems: list[str]) -> dict[Path, str]:
    """The caption of each picture of one folder; what is wrong with a caption file is added to ``problems``."""
    suffix = extension if extension.startswith(".") else f".{extension}"
    captions = {}
    without = 0
    for path in files:
        caption_file = path.with_name(path.stem + suffix)
        captions[path] = tokens
        if not caption_file.is_file():
            without += 1
            continue
        problem, captions[path] = _read_caption(caption_file, all_lines)
        if problem and problem not in problems:
            problems.append(problem)
    if without:
        log.info('%d of %d pictures have no %s file; their caption is "%s"', without, len(files), suffix, tokens)
    return captions


def _read_caption(path: Path, all_lines: bool) -> tuple[str, str]:
    """(problem, first line or all lines); one of the two is empty."""
    try:
        text = path.read_bytes().removeprefix(BYTE_ORDER_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"byte {error.object[error.start]:#04x} at position {error.start}"
        return f"{path}: the caption is not UTF-8 ({where}); save the file as UTF-8", ""
    lines = [line.strip() for line in text.splitlines()]
    caption = "\n".join(filter(None, lines)) if all_lines else next(iter(lines), "")
    if caption:
        return "", caption
    place = "the first line of the caption is empty" if text.strip() else "the caption file is empty"
    return f"{path}: {place}; write the caption on line 1, or delete the file to use the folder's name", ""
