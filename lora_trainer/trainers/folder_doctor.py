"""A bare folder of pictures for the dataset doctor: numbered folders as a LoRA reads them, or any folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.data.buckets import BucketSettings, Size
from lora_trainer.data.doctor.dataset import CAPTION, OTHER, Dataset, Wrong
from lora_trainer.data.folders import EXTENSIONS, find_in_subsets, numbered_folders
from lora_trainer.data.subsets import DataSet, Subset
from lora_trainer.errors import Refusal
from lora_trainer.trainers.lora.doctor import entries_of, subsets_dataset

LEAST_PX, MOST_PX = 256, 2048  # of a bucket's side, where the resolution is no less and no more


@dataclass(frozen=True)
class FolderOptions:
    """What a preset would say."""

    resolution_px: Size = (1024, 1024)
    enlarge: bool = False
    batch: int = 1
    caption_extension: str = ".txt"
    max_token_length: int = 75


def folder_dataset(folder: Path, options: FolderOptions) -> Dataset:
    """Raises Refusal where there is no folder."""
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise Refusal(f"{folder}: the folder of the pictures {found}; correct the path, or name a preset by --preset")
    subsets = tuple(_subsets(folder, options))
    problems: list[str] = []
    sides = options.resolution_px
    buckets = BucketSettings(sides, min(LEAST_PX, *sides), max(MOST_PX, *sides), upscale=options.enlarge)
    sets = (DataSet(buckets, options.batch, subsets),)
    if not subsets:
        endings = ", ".join(extension[1:] for extension in EXTENSIONS)
        problems.append(f"{folder}: holds no picture ({endings})")
    pictures = find_in_subsets(subsets, folder, problems) if subsets else ()
    wrong = [Wrong(CAPTION if "caption" in text else OTHER, text) for text in problems]
    return subsets_dataset(str(folder), sets, entries_of(sets, pictures), wrong, folder, options.max_token_length)


def _subsets(folder: Path, options: FolderOptions) -> Iterator[Subset]:
    try:
        numbered = numbered_folders(folder, "the folder")
    except Refusal:
        numbered = []
    for place, repeats, tokens in numbered:
        yield Subset(place, place.name, 0, repeats, tokens, caption_extension=options.caption_extension)
    if numbered:
        return
    for place in sorted({folder, *(path for path in folder.rglob("*") if path.is_dir())}):
        hidden = any(part.startswith(".") for part in place.relative_to(folder).parts)
        if not hidden and any(path.suffix.lower() in EXTENSIONS for path in place.iterdir()):
            name = place.relative_to(folder).as_posix() if place != folder else folder.name
            yield Subset(place, name, caption_extension=options.caption_extension)
