"""The training set that a LoRA preset describes, by folders or by a dataset_config, with what is held out of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lora_trainer.config.lora import LoraPreset
from lora_trainer.data.buckets import BucketSettings
from lora_trainer.data.captions import CaptionSettings
from lora_trainer.data.dataset_config import OF_CAPTIONS, read_dataset_config
from lora_trainer.data.folders import Picture, numbered_folders, read_folders, read_subsets
from lora_trainer.data.held_out import hold_out
from lora_trainer.data.regularisation import fill_up
from lora_trainer.data.subsets import REGULARISATION, DataSet, Subset
from lora_trainer.data.survey import Sample, decode_all
from lora_trainer.errors import Refusal
from lora_trainer.trainers.diffusion.looking import look_at_pictures

log = logging.getLogger(__name__)

NO_MASKS = (
    "masked_loss: no picture has a mask: none is transparent, and there is no conditioning_data_dir; name the "
    "folder of the masks, or turn masked_loss off"
)


@dataclass(frozen=True)
class TrainingSet:
    """Data sets, their folders in one row, and the pictures that are trained and measured."""

    sets: tuple[DataSet, ...]
    samples: tuple[Sample, ...]
    held_out: tuple[Sample, ...] = ()

    @property
    def subsets(self) -> tuple[Subset, ...]:
        """By the number that a sample has."""
        return tuple(subset for data_set in self.sets for subset in data_set.subsets)

    def subset_of(self, sample: Sample) -> Subset:
        return self.subsets[sample.subset]

    @property
    def is_masked(self) -> bool:
        return any(sample.mask is not None or sample.alpha_mask for sample in self.samples)


def data_sets(preset: LoraPreset) -> tuple[DataSet, ...]:
    """What is to be read, before any picture is looked for. Raises Refusal."""
    if preset.dataset_config:
        found = read_dataset_config(Path(preset.dataset_config), _usual(preset))
        _refuse_what_a_cache_freezes(preset, found)
        return tuple(_with_masks(data_set, preset) for data_set in found)
    folders = [(*each, False) for each in numbered_folders(Path(preset.train_data_dir), "train_data_dir")]
    if preset.reg_data_dir:
        folders += [(*each, True) for each in numbered_folders(Path(preset.reg_data_dir), "reg_data_dir")]
    masks = Path(preset.conditioning_data_dir) if preset.masked_loss and preset.conditioning_data_dir else None
    subsets = [
        Subset(
            folder, f"{REGULARISATION if is_reg else ''}{folder.name}", 0, repeats, tokens, is_reg,
            preset.caption_extension, caption_settings(preset), preset.flip_aug, preset.color_aug, preset.random_crop,
            (preset.masked_loss and masks is None) or preset.alpha_mask, None if is_reg else masks,
        )
        for folder, repeats, tokens, is_reg in folders
    ]  # fmt: skip
    split, seed = preset.validation_split, preset.validation_seed
    return (DataSet(bucket_settings(preset), preset.batch_size, tuple(subsets), split, seed),)


def _refuse_what_a_cache_freezes(preset: LoraPreset, sets: Sequence[DataSet]) -> None:
    """A cache stands for something that stays the same."""
    problems = []
    for subset in (subset for data_set in sets for subset in data_set.subsets):
        where = f"{preset.dataset_config}: {subset.image_dir}"
        for key in ("color_aug", "random_crop"):
            if preset.caches_latents and getattr(subset, key):
                text = "changes the image at every step, but cache_latents encodes it once; turn one of them off"
                problems.append(f"{where}: {key} {text}")
        for key in ("shuffle_caption", "caption_tag_dropout_rate", "token_warmup_step", "enable_wildcard"):
            if preset.caches_text and getattr(subset.captions, key):
                text = "changes the caption at every step, but sdxl_cache_text_encoder_outputs encodes it once"
                problems.append(f"{where}: {key} {text}; turn one of them off")
    if problems:
        raise Refusal(*problems)


def read_pictures(preset: LoraPreset, sets: Sequence[DataSet]) -> tuple[Picture, ...]:
    """The files of all folders and their captions; no picture is opened. Raises Refusal."""
    subsets = [subset for data_set in sets for subset in data_set.subsets]
    return read_subsets(subsets, Path(preset.dataset_config or preset.train_data_dir))


def training_set(preset: LoraPreset, seed: int) -> TrainingSet:
    """Every picture opened and placed, regularisation filled up, some held out. Raises Refusal.

    What is measured is decoded here; what is trained as well, unless its latents are encoded before the first step.
    """
    sets = data_sets(preset)
    surveyed = _surveyed(sets, read_pictures(preset, sets), whole=not preset.caches_latents)
    held_out = [each for pair in zip(sets, surveyed, strict=True) for each in _held_out(preset, *pair, seed)]
    decode_all(held_out, [sample for own in surveyed for sample in own])
    hidden = {sample.digest for sample in held_out}
    samples: list[Sample] = []
    for own in surveyed:  # what one data set holds out is not trained in another one either
        trained = [sample for sample in own if not sample.is_reg and sample.digest not in hidden]
        samples += [*trained, *_filled_up([sample for sample in own if sample.is_reg], trained)]
    if preset.validation_data_dir:
        held_out = list(_validation_folder(preset, sets[0]))
    _say_what_is_idle(preset, held_out)
    found = TrainingSet(sets, tuple(samples), tuple(held_out[: preset.max_validation_steps or None]))
    if preset.masked_loss and not found.is_masked:
        raise Refusal(NO_MASKS)
    return found


def caption_settings(preset: LoraPreset) -> CaptionSettings:
    return CaptionSettings(**{each.name: getattr(preset, each.name) for each in fields(CaptionSettings)})


def bucket_settings(preset: LoraPreset) -> BucketSettings:
    return BucketSettings(
        preset.resolution_px,
        preset.min_bucket_reso,
        preset.max_bucket_reso,
        preset.bucket_reso_steps,
        upscale=not preset.bucket_no_upscale,
        enabled=preset.enable_bucket,
    )


def _usual(preset: LoraPreset) -> Mapping[str, Any]:
    """What the preset says about what a dataset_config leaves out, by the file's names."""
    same = (
        "enable_bucket", "bucket_no_upscale", "bucket_reso_steps", "min_bucket_reso", "max_bucket_reso",
        "validation_split", "validation_seed", "caption_extension", "flip_aug", "color_aug", "random_crop",
        "alpha_mask",
    )  # fmt: skip
    values = {name: getattr(preset, name) for name in (*same, *OF_CAPTIONS)}
    return {**values, "resolution": preset.max_resolution, "batch_size": preset.batch_size, "num_repeats": 1}


def _with_masks(data_set: DataSet, preset: LoraPreset) -> DataSet:
    """masked_loss asks every folder without masks for the transparency; without it masks of the file have no say."""

    def changed(subset: Subset) -> Subset:
        if not preset.masked_loss:
            if subset.conditioning_data_dir is not None:
                log.info("%s: conditioning_data_dir is read by masked_loss only, which is off", subset.image_dir)
            return replace(subset, conditioning_data_dir=None)
        return subset if subset.is_masked else replace(subset, alpha_mask=True)

    return replace(data_set, subsets=tuple(changed(subset) for subset in data_set.subsets))


def _surveyed(sets: Sequence[DataSet], pictures: Sequence[Picture], *, whole: bool) -> list[tuple[Sample, ...]]:
    """The samples of each data set. Raises Refusal with the problems of all of them."""
    numbers = [number for number, data_set in enumerate(sets) for _ in data_set.subsets]
    found, problems = [], []
    for number, data_set in enumerate(sets):
        own = [each for each in pictures if numbers[each.subset] == number]
        try:
            found.append(look_at_pictures(own, data_set.buckets, whole=whole))
        except Refusal as refusal:
            problems += [problem for problem in refusal.problems if problem not in problems]
    if problems:
        raise Refusal(*problems)
    return found


def _held_out(preset: LoraPreset, data_set: DataSet, samples: Sequence[Sample], seed: int) -> Sequence[Sample]:
    trained = [sample for sample in samples if not sample.is_reg]
    if preset.validation_data_dir or not data_set.validation_split or not trained:
        return ()
    return hold_out(trained, data_set.validation_split, data_set.validation_seed or seed)[1]


def _say_what_is_idle(preset: LoraPreset, held_out: Sequence[Sample]) -> None:
    """What only a dataset_config can tell; the rest is known from the preset alone."""
    if not preset.dataset_config or held_out:
        return
    for key in ("save_best", "early_stopping_patience"):
        if getattr(preset, key):
            log.warning("%s has no effect: no images are held out; set validation_split", key)


def _validation_folder(preset: LoraPreset, data_set: DataSet) -> tuple[Sample, ...]:
    folder = Path(preset.validation_data_dir)
    pictures = read_folders(folder, preset.caption_extension, preset.enable_wildcard, "validation_data_dir")
    samples = look_at_pictures(pictures, data_set.buckets, whole=True)
    return tuple(replace(sample, subset=0) for sample in samples)


def _filled_up(regularisation: Sequence[Sample], trained: Sequence[Sample]) -> list[Sample]:
    """The regularisation pictures with as many uses as the trained ones; those that are not needed are left out."""
    wanted = sum(sample.repeats for sample in trained)
    repeats = fill_up([sample.repeats for sample in regularisation], wanted)
    unused = repeats.count(0)
    if unused:
        log.info("%d of %d regularisation pictures are more than needed and not used", unused, len(repeats))
    return [replace(sample, repeats=count) for sample, count in zip(regularisation, repeats, strict=True) if count]
