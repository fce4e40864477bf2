"""Find the pictures of a data set that is laid out as `<repeats>_<name>` folders, with their captions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import features

from lora_trainer.data.captions import CaptionSettings
from lora_trainer.data.metadata_captions import captions_of_metadata
from lora_trainer.data.subsets import Subset
from lora_trainer.errors import Refusal

log = logging.getLogger(__name__)

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp") + ((".avif",) if features.check("avif") else ())
NAMED_AT_MOST = 5
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Picture:
    """One picture file as the folders describe it; the file itself has not been opened yet.

    ``name`` is the path below the data set's folder, written with ``/`` on every system: the picture's stable identity.
    ``subset`` is the number of its folder; ``alpha_mask`` says that its transparency, if any, is its mask.
    """

    path: Path
    name: str
    folder: str
    repeats: int
    caption: str
    subset: int = 0
    is_reg: bool = False
    mask: Path | None = None
    alpha_mask: bool = False


def read_folders(
    train_data_dir: Path, caption_extension: str, all_lines: bool = False, key: str = "train_data_dir"
) -> tuple[Picture, ...]:
    """The pictures of every `<repeats>_<name>` subfolder, sorted by name; see `read_subset` for their captions.

    Raises Refusal, which lists all problems of the layout and of the caption files at once; `key` is the preset's.
    """
    captions = CaptionSettings(enable_wildcard=all_lines)
    subsets = [
        Subset(folder, folder.name, 0, repeats, tokens, False, caption_extension, captions)
        for folder, repeats, tokens in numbered_folders(train_data_dir, key)
    ]
    return read_subsets(subsets, train_data_dir)


def read_subsets(subsets: Sequence[Subset], where: Path) -> tuple[Picture, ...]:
    """The pictures of all subsets, regularisation last and otherwise sorted by data set and name.

    Raises Refusal with every problem of their files, or when there is no picture at all `where` they were looked for.
    """
    problems: list[str] = []
    pictures = find_in_subsets(subsets, where, problems)
    if problems:
        raise Refusal(*problems)
    return pictures


def find_in_subsets(subsets: Sequence[Subset], where: Path, problems: list[str]) -> tuple[Picture, ...]:
    """The same; what is wrong is added to ``problems``."""
    pictures: list[Picture] = []
    for index, subset in enumerate(subsets):
        pictures += read_subset(subset, index, problems)
    if not problems and all(picture.is_reg for picture in pictures):
        endings = ", ".join(extension[1:] for extension in EXTENSIONS)
        kind = "numbered folders" if where.is_dir() else "folders"
        problems.append(f"{where}: none of its {len(subsets)} {kind} holds a picture ({endings})")
    return tuple(sorted(pictures, key=lambda each: (subsets[each.subset].dataset, each.is_reg, each.name)))


def read_subset(subset: Subset, index: int, problems: list[str]) -> list[Picture]:
    """The pictures of one folder. What is wrong with its files is added to ``problems``.

    A picture's caption is the first line of the file beside it that has the same stem and ``caption_extension``, or
    with ``enable_wildcard`` every line that is not blank, joined by line breaks; without such a file it is the class
    tokens. Folders inside the folder and hidden files are not read.
    """
    files = _picture_files(subset.image_dir)
    if not files:
        log.warning("%s: no pictures in this folder", subset.image_dir)
    if subset.metadata_file is not None:
        captions = captions_of_metadata(subset.metadata_file, files, problems)
    else:
        wildcards = subset.captions.enable_wildcard
        captions = _captions(files, subset.caption_extension, subset.class_tokens, wildcards, problems)
    masks: Mapping[Path, Path] = {}
    if subset.conditioning_data_dir is not None:
        try:
            masks = _mask_files(subset.conditioning_data_dir, subset.image_dir.name, list(captions))
        except Refusal as refusal:
            problems.extend(refusal.problems)
    return [
        Picture(
            path, f"{subset.name}/{path.name}", subset.name, subset.num_repeats, caption, index, subset.is_reg,
            masks.get(path), subset.alpha_mask,
        )
        for path, caption in captions.items()
    ]  # fmt: skip


def _mask_files(folder: Path, name: str, pictures: Sequence[Path]) -> dict[Path, Path]:
    """The mask of every picture: the picture of the same stem in the folder, or in its folder of this name.

    Raises Refusal for those without one.
    """
    if not folder.is_dir():
        raise Refusal(f"conditioning_data_dir: {folder}: there is no such folder")
    folder = folder / name if (folder / name).is_dir() else folder
    by_stem = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in EXTENSIONS}
    missing = [picture for picture in pictures if picture.stem not in by_stem]
    if missing:
        shown = ", ".join(path.name for path in missing[:NAMED_AT_MOST])
        more = f" and {len(missing) - NAMED_AT_MOST} more" if len(missing) > NAMED_AT_MOST else ""
        raise Refusal(f"{folder}: there is no mask for {shown}{more}; a mask has the name of its picture")
    return {picture: by_stem[picture.stem] for picture in pictures}


def numbered_folders(parent: Path, key: str) -> list[tuple[Path, int, str]]:
    """(folder, repeats, class tokens) of every `<repeats>_<name>` subfolder, by name.

    Folders with 0 repeats or without a number are not used. Raises Refusal where there is none; `key` is the preset's.
    """
    if not parent.is_dir():
        found = "is a file" if parent.exists() else "does not exist"
        what = "training pictures" if key == "train_data_dir" else "pictures"
        raise Refusal(f"{parent}: the folder of the {what} {found}; check {key}")
    counted = _counted_folders(parent)
    loose = _picture_files(parent)
    if not counted:
        raise Refusal(_no_counted_folder(parent, bool(loose), key))
    if loose:
        log.warning("%s: %d pictures lie outside the numbered folders and are not used", parent, len(loose))
    return counted


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
