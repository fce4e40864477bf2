"""The data set of a fine-tuning for the dataset doctor: what its preset names, before any picture is opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.config.finetune_saving import VALIDATION
from lora_trainer.config.reader import Loaded
from lora_trainer.data.doctor.dataset import (
    CAPTION,
    MEASURED,
    OTHER,
    TRAINED,
    CaptionRules,
    Dataset,
    Entry,
    Written,
    Wrong,
)
from lora_trainer.data.doctor.rules import BucketRules
from lora_trainer.data.doctor.strays import DEEPER, LOOSE, strays
from lora_trainer.data.everydream.captions import compose
from lora_trainer.data.everydream.pictures import TEXT_CAPTIONS, YAML_CAPTIONS, Item, find_items
from lora_trainer.data.everydream.placing import bucket_settings
from lora_trainer.data.everydream.settings import GLOBAL, LOCAL, OF_A_FOLDER
from lora_trainer.models.text_encoding import CHUNK_WORDS
from lora_trainer.trainers.diffusion.captions_measured import caption_measure
from lora_trainer.trainers.job import attempt

FALLBACK = "the beginning of its file name"


def finetune_dataset(loaded: Loaded) -> Dataset:
    preset = loaded.preset
    assert isinstance(preset, FinetunePreset)
    layout: list[str] = []
    found: list[str] = []
    entries: list[Entry] = []
    for use, place, key in _places(preset):
        items = attempt(lambda place=place, key=key: find_items(Path(place), key, found), layout) or ()  # type: ignore[misc]
        entries += [_entry(item, use, Path(place)) for item in items]
    root = Path(preset.data_root)
    captions = CaptionRules(caption_measure(CHUNK_WORDS), CHUNK_WORDS, ",", ".txt or .caption", FALLBACK)
    folders = sorted({Path(entry.spoken).parent for entry in entries if entry.use == TRAINED})
    endings = (*TEXT_CAPTIONS, *YAML_CAPTIONS)
    read = [Path(entry.spoken) for entry in entries]
    lost = strays(folders, read, endings) if root.is_dir() else ()
    problems = [*(Wrong(OTHER, text) for text in layout), *(Wrong(_kind(text), text) for text in found)]
    return Dataset(
        f"{loaded.path.name}, a preset of the trainer finetune",
        tuple(entries),
        BucketRules(
            (bucket_settings(preset.resolution),),
            (preset.batch_size * preset.grad_accum,),
            fills=True,
            moves=preset.crop_jitter > 0 and (preset.train_vae or not preset.caches_latents),
        ),
        preset.batch_size * preset.grad_accum,
        None if preset.train_vae else captions,
        tuple(problems),
        tuple((file, why) for file, why in lost if why not in (LOOSE, DEEPER) and not _sets_folder(file)),
        rows=(("resolution", f"about {preset.resolution} x {preset.resolution} in each shape"), *_split(preset)),
    )


def _places(preset: FinetunePreset) -> Iterator[tuple[str, str, str]]:
    """(use, folder, key) of everything that is read."""
    yield TRAINED, preset.data_root, "data_root"
    if preset.validates and preset.val_split_mode == "manual":
        yield MEASURED, preset.manual_data_root, "manual_data_root"
    if preset.validates:
        for _, path in preset.extra_manual_datasets:
            yield MEASURED, path, "extra_manual_datasets"


def _entry(item: Item, use: str, root: Path) -> Entry:
    files: Sequence[Path] = [item.path.with_suffix(suffix) for suffix in (*TEXT_CAPTIONS, *YAML_CAPTIONS)]
    file = next((file for file in files if file.is_file()), None) if root.is_dir() else None
    expected = f"{item.path.stem}.txt" if root.is_dir() else ""
    text = compose(item.caption, 0, shuffle=False)
    written = Written(item.caption.text, file, expected, (text,))
    folder = item.name.rpartition("/")[0]
    read, multiply = item.path.read_bytes, item.settings.multiply
    return Entry(item.name, str(item.path), read, item.path.suffix, folder, multiply, use, 0, written)


def _kind(problem: str) -> str:
    return CAPTION if "the caption" in problem else OTHER


def _sets_folder(file: str) -> bool:
    """Whether it is a file with settings of a whole folder."""
    return Path(file).name in (*LOCAL, *GLOBAL) or Path(file).stem in OF_A_FOLDER


def _split(preset: FinetunePreset) -> Iterator[tuple[str, str]]:
    if preset.validates and preset.val_split_mode == "automatic":
        share = f"{preset.auto_split_proportion:.0%} of the pictures, by chance, are measured and not trained"
        yield VALIDATION, share
