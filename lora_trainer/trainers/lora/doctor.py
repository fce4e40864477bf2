"""The data set of a LoRA training for the dataset doctor: what its preset names, before any picture is opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.reader import Loaded
from lora_trainer.data.captions import unvaried_captions
from lora_trainer.data.doctor.dataset import (
    CAPTION,
    MASK,
    MEASURED,
    OTHER,
    REGULARISATION,
    TRAINED,
    CaptionRules,
    Dataset,
    Entry,
    Written,
    Wrong,
)
from lora_trainer.data.doctor.rules import BucketRules
from lora_trainer.data.doctor.strays import strays
from lora_trainer.data.folders import Picture, find_in_subsets, read_folders
from lora_trainer.data.regularisation import fill_up
from lora_trainer.data.subsets import DataSet, Subset
from lora_trainer.trainers.diffusion.captions_measured import caption_measure
from lora_trainer.trainers.job import attempt
from lora_trainer.trainers.lora.data import NO_MASKS, data_sets

LONGEST_TOKENS = 225
MORE_TOKENS = "max_token_length 150 or 225 reads more."
CLASS_TOKENS = "its folder's name without the number"


def lora_dataset(loaded: Loaded) -> Dataset:
    preset = loaded.preset
    assert isinstance(preset, LoraPreset)
    layout: list[str] = []
    found: list[str] = []
    sets = attempt(lambda: data_sets(preset), layout) or ()
    root = Path(preset.dataset_config or preset.train_data_dir)
    subsets = [subset for data_set in sets for subset in data_set.subsets]
    pictures = find_in_subsets(subsets, root, found) if subsets else ()
    entries = with_masks(entries_of(sets, pictures), pictures)
    if preset.validation_data_dir:
        folder = Path(preset.validation_data_dir)
        read = partial(read_folders, folder, preset.caption_extension, preset.enable_wildcard, "validation_data_dir")
        measured = attempt(read, layout) or ()
        entries += [_entry(picture, subsets[0], MEASURED, 1) for picture in measured] if subsets else []
    return subsets_dataset(
        f"{loaded.path.name}, a preset of the trainer lora", sets, entries,
        [*(Wrong(OTHER, text) for text in layout), *(Wrong(_kind(text), text) for text in found)],
        None if preset.dataset_config else root, preset.max_token_length,
        weighted=preset.weighted_captions, passes=preset.gradient_accumulation_steps,
        maskless=NO_MASKS if preset.masked_loss else "",
    )  # fmt: skip


def subsets_dataset(
    title: str, sets: Sequence[DataSet], entries: Sequence[Entry], problems: Sequence[Wrong], root: Path | None,
    limit: int, *, weighted: bool = False, passes: int = 1, maskless: str = "",
) -> Dataset:  # fmt: skip
    """Of folders with captions beside the pictures. `root` is the folder that holds nothing else."""
    subsets = [subset for data_set in sets for subset in data_set.subsets]
    endings = sorted({_suffix(subset) for subset in subsets})
    separators = {subset.captions.caption_separator for subset in subsets}
    captions = CaptionRules(
        caption_measure(limit, weighted), limit, next(iter(separators)) if len(separators) == 1 else ",",
        " or ".join(endings), CLASS_TOKENS if any(subset.class_tokens for subset in subsets) else "nothing",
        MORE_TOKENS if limit < LONGEST_TOKENS else "",
    )  # fmt: skip
    read = [Path(entry.spoken) for entry in entries]
    return Dataset(
        title,
        tuple(entries),
        BucketRules(
            tuple(data_set.buckets for data_set in sets),
            tuple(passes * data_set.batch_size for data_set in sets),
            moves=any(subset.random_crop for subset in subsets),
            maskless=maskless,
        ),
        passes * max((data_set.batch_size for data_set in sets), default=1),
        captions,
        tuple(problems),
        tuple(strays([subset.image_dir for subset in subsets], read, endings, root)),
        rows=tuple(_rows(sets)),
    )


def entries_of(sets: Sequence[DataSet], pictures: Sequence[Picture]) -> list[Entry]:
    """In their order, regularisation with the repeats that it is filled up to."""
    subsets = [subset for data_set in sets for subset in data_set.subsets]
    numbers = [number for number, data_set in enumerate(sets) for _ in data_set.subsets]
    entries: list[Entry] = []
    for number in range(len(sets)):
        own = [picture for picture in pictures if numbers[picture.subset] == number]
        trained = [picture for picture in own if not picture.is_reg]
        spare = [picture for picture in own if picture.is_reg]
        filled = fill_up([picture.repeats for picture in spare], sum(picture.repeats for picture in trained))
        entries += [_entry(each, subsets[each.subset], TRAINED, each.repeats, number) for each in trained]
        entries += [
            _entry(each, subsets[each.subset], REGULARISATION, count, number)
            for each, count in zip(spare, filled, strict=True)
        ]
    return entries


def with_masks(entries: Sequence[Entry], pictures: Sequence[Picture]) -> list[Entry]:
    """The masks come behind, each with the number of its picture."""
    masks = {str(picture.path): picture.mask for picture in pictures if picture.mask is not None}
    wanted = [(number, masks[entry.spoken]) for number, entry in enumerate(entries) if entry.spoken in masks]
    return [*entries, *(_mask(path, number) for number, path in wanted)]


def _mask(path: Path, number: int) -> Entry:
    return Entry(path.name, str(path), path.read_bytes, path.suffix, path.parent.name, 0, MASK, of=number)


def _entry(picture: Picture, subset: Subset, use: str, repeats: int, group: int = 0) -> Entry:
    expected = picture.path.stem + _suffix(subset)
    beside = picture.path.with_name(expected)
    written = Written(
        picture.caption,
        beside if subset.metadata_file is None and beside.is_file() else None,
        "" if subset.metadata_file is not None else expected,
        unvaried_captions(picture.caption, subset.captions),
    )
    path = picture.path
    return Entry(
        picture.name, str(path), path.read_bytes, path.suffix, picture.folder, repeats, use, group, written
    )  # fmt: skip


def _suffix(subset: Subset) -> str:
    extension = subset.caption_extension
    return extension if extension.startswith(".") else f".{extension}"


def _kind(problem: str) -> str:
    return CAPTION if "caption" in problem else OTHER


def _rows(sets: Sequence[DataSet]) -> Iterator[tuple[str, str]]:
    for number, data_set in enumerate(sets, 1):
        height, width = data_set.buckets.resolution_px
        small = "small pictures are enlarged" if data_set.buckets.upscale else "small pictures stay small"
        steps = f"buckets in steps of {data_set.buckets.step_px} px, {small}"
        how = steps if data_set.buckets.enabled else "no buckets"
        yield "resolution" if len(sets) == 1 else f"data set {number}", f"{width} x {height}, {how}"
        if data_set.validation_split:
            share = f"{data_set.validation_split:.0%} of the pictures, by chance, are measured and not trained"
            yield "held out", share
