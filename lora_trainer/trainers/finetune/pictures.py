"""The pictures that a finetune preset names: those that are trained, those that are measured, and lists of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer import atomic
from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.config.finetune_saving import STABILIZED, VALIDATION
from lora_trainer.data.buckets import BucketSettings
from lora_trainer.data.everydream.epochs import EpochPlan, Rated
from lora_trainer.data.everydream.pictures import Item, read_data_root
from lora_trainer.data.everydream.placing import bucket_settings, part_size, undersized_text
from lora_trainer.data.everydream.schedule_file import schedule_name, schedule_text
from lora_trainer.data.everydream.usage import Usage
from lora_trainer.data.folders import Picture
from lora_trainer.data.survey import Sample, decode_all
from lora_trainer.draws import draw_key
from lora_trainer.errors import Refusal
from lora_trainer.trainers.diffusion.looking import look_at_pictures

log = logging.getLogger(__name__)

UNDERSIZED_FILE = "undersized_images.txt"
MANY_DUPLICATES = 0.5


@dataclass(frozen=True)
class PictureSet:
    """Items with what the survey found of each."""

    items: tuple[Item, ...]
    samples: tuple[Sample, ...]

    def chosen(self, keep: Callable[[Sample], bool]) -> PictureSet:
        pairs = [pair for pair in zip(self.items, self.samples, strict=True) if keep(pair[1])]
        return PictureSet(tuple(item for item, _ in pairs), tuple(sample for _, sample in pairs))


@dataclass(frozen=True)
class FinetunePictures:
    """``measured`` is by the name under which the loss is recorded."""

    trained: PictureSet
    measured: tuple[tuple[str, PictureSet], ...] = ()


def find_items(preset: FinetunePreset) -> dict[str, tuple[Item, ...]]:
    """The pictures of data_root (under "") and of the folders that are measured; none is opened. Raises Refusal."""
    wanted = [("", preset.data_root, "data_root")]
    if preset.validates and preset.val_split_mode == "manual":
        wanted.append((VALIDATION, preset.manual_data_root, "manual_data_root"))
    if preset.validates:
        wanted += [(name, path, "extra_manual_datasets") for name, path in preset.extra_manual_datasets]
    return _all_or_refusal({name: _reader(path, key) for name, path, key in wanted})


def finetune_pictures(preset: FinetunePreset, seed: int) -> FinetunePictures:
    """Every picture opened and placed, and some set apart. Raises Refusal with all that is wrong.

    What is measured is decoded here; what is trained as well, unless its latents are encoded before the first step.
    """
    found = find_items(preset)
    buckets = bucket_settings(preset.resolution)
    decodes = preset.train_vae or not preset.caches_latents
    surveyed = _all_or_refusal(
        {
            name: _surveyor([item.picture for item in items], buckets, whole=bool(name) or decodes)
            for name, items in found.items()
        }
    )
    sets = {name: PictureSet(found[name], surveyed[name]) for name in found}
    trained = sets.pop("")
    measured = list(sets.items())
    if preset.validates and preset.val_split_mode == "automatic":
        apart = _lots(trained.samples, preset.auto_split_proportion, preset.val_seed or seed)
        measured.insert(0, (VALIDATION, trained.chosen(lambda sample: sample.digest in apart)))
        trained = trained.chosen(lambda sample: sample.digest not in apart)
        if not trained.items:
            text = (
                f"auto_split_proportion: {preset.auto_split_proportion:g} of {len(apart)} pictures leaves none to train"
            )
            raise Refusal(f"{text}; add pictures, or use manual_data_root")
    if preset.validates and preset.stabilize_training_loss:
        seen = _lots(trained.samples, preset.stabilize_split_proportion, preset.val_seed or seed)
        measured.append((STABILIZED, trained.chosen(lambda sample: sample.digest in seen)))
    decode_all([sample for _, pictures in measured for sample in pictures.samples], trained.samples)
    return FinetunePictures(trained, tuple(measured))


def epoch_plan(preset: FinetunePreset, pictures: PictureSet, total_batch: int, seed: int) -> EpochPlan:
    """The order of the trained pictures, with ``total_batch`` of them in a step. Of a VAE's, parts that have one size
    make a batch."""
    rated = Rated(preset.max_epochs, preset.rated_dataset_target_dropout_percent) if preset.rated_dataset else None
    most_px = preset.vae_crop_px if preset.train_vae else 0
    buckets = [part_size(sample.placement.bucket_px, most_px) for sample in pictures.samples]
    return EpochPlan(buckets, [item.settings for item in pictures.items], total_batch, seed, rated)


def usage_of(preset: FinetunePreset, seed: int) -> Usage:
    return Usage(seed, preset.cond_dropout, preset.flip_p, preset.shuffle_tags, preset.keep_tags)


def write_epoch_schedule(folder: Path, plan: EpochPlan, epoch: int, samples: Sequence[Sample]) -> Path:
    """``ep9_batch_schedule.txt`` for the epoch, counted from 0."""
    path = folder / schedule_name(epoch)
    text = schedule_text(plan.epoch(epoch), [sample.path for sample in samples], plan.bucket_of_item)
    atomic.write_text(path, text)
    return path


def say_about_pictures(folder: Path, pictures: PictureSet, plan: EpochPlan) -> None:
    """Warn of pictures that have to be enlarged, which a file lists, and of shapes that are mostly duplicates."""
    if text := undersized_text(pictures.samples):
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(folder / UNDERSIZED_FILE, text)
        count, path = text.count("\n"), folder / UNDERSIZED_FILE
        log.warning("%d of %d pictures are smaller than they are trained at: %s", count, len(pictures.items), path)
    for (height, width), share in plan.duplicates_in().items():
        if share > MANY_DUPLICATES:
            log.warning(
                "%.0f %% of what is trained at %d x %d are duplicates that fill batches; add pictures of this shape, "
                "crop these, or make the batch smaller",
                share * 100,
                width,
                height,
            )


def _lots(samples: Sequence[Sample], share: float, seed: int) -> frozenset[str]:
    """The digests of the share of the pictures that is set apart, at least one: equal pictures share their lot."""
    digests = {sample.digest for sample in samples}
    ordered = sorted(digests, key=lambda digest: draw_key(seed, "held out", digest))
    return frozenset(ordered[: max(1, math.ceil(share * len(ordered)))])


def _reader(path: str, key: str) -> Callable[[], tuple[Item, ...]]:
    return lambda: read_data_root(Path(path), key)


def _surveyor(pictures: Sequence[Picture], buckets: BucketSettings, *, whole: bool) -> Callable[[], tuple[Sample, ...]]:
    return lambda: look_at_pictures(pictures, buckets, whole=whole)


def _all_or_refusal(looks: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """What each finds, or everything that is wrong with any."""
    found, problems = {}, []
    for name, look in looks.items():
        try:
            found[name] = look()
        except Refusal as refusal:
            problems += [problem for problem in refusal.problems if problem not in problems]
    if problems:
        raise Refusal(*problems)
    return found
