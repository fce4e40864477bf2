"""A restoration training as far as it is known before a model is loaded: pictures, batches, length, its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_trainer.config.reader import Loaded
from lora_trainer.config.restoration import RestorationPreset
from lora_trainer.config.restoration_model import STAND_IN
from lora_trainer.data.batches import Share
from lora_trainer.data.endless_order import EndlessBatches
from lora_trainer.data.pair_list import Columns
from lora_trainer.data.pair_store import open_store
from lora_trainer.data.restoration_crops import RestorationCrops
from lora_trainer.data.restoration_pairs import RestorationSet, RestorationSources, survey_restoration
from lora_trainer.data.restoration_sizes import enlarged, too_small_to_measure
from lora_trainer.engine.cadence import Cadence
from lora_trainer.engine.kept_files import Keep, Names
from lora_trainer.engine.validation import NO_VALIDATION, Validation
from lora_trainer.errors import Refusal
from lora_trainer.losses.deep_similarity import find_lpips, lpips_files
from lora_trainer.models.checkpoint import Checkpoint
from lora_trainer.models.restoration.backbone import find_backbone
from lora_trainer.models.restoration.base import find_base
from lora_trainer.models.restoration.hub_files import is_hub_name
from lora_trainer.models.weights_identity import weights_identity
from lora_trainer.trainers.job import Job, attempt
from lora_trainer.trainers.restoration.checks import restoration_problems
from lora_trainer.trainers.restoration.data import RestorationData
from lora_trainer.trainers.restoration.export import HYPIR_NAMES

REPLACED = (  # keys whose content, not whose spelling, says whether a run is the same
    "base_model_path", "discriminator_backbone", "lpips_weights", "weight_path", "train_dir", "file_list",
    "dataroot_gt", "image_path_prefix", "batch_size", "gradient_accumulation_steps", "mixed_precision", "seed",
)  # fmt: skip
SCORE = "val/Final_Score"
HIGHER_IS_BETTER: Mapping[str, bool] = {"val/PSNR": True, "val/SSIM": True, "val/LPIPS": False, SCORE: True}


@dataclass(frozen=True)
class RestorationJob(Job):
    """The training's pictures and those that are held out. `checkpoint` and `backbone` are None for stand-ins, and the
    backbone also where there is no discriminator."""

    preset: RestorationPreset
    checkpoint: Checkpoint | None
    backbone: Path | None
    pairs: RestorationSet
    held_out: RestorationSet | None

    @property
    def total_batch(self) -> int:
        """Pairs that the LoRA sees in a step, over all processes and passes; the discriminator sees as many others."""
        return self.world * self.preset.batch_size * self.preset.gradient_accumulation_steps

    @property
    def plan(self) -> EndlessBatches:
        return EndlessBatches(len(self.pairs.pairs), self.total_batch, self.seed)

    @property
    def steps_per_epoch(self) -> int:
        """An epoch shows each picture at least once, and a small set more often, half of the times to the LoRA."""
        shown = sum(pair.repeats for pair in self.pairs.pairs)
        return -(-shown // (self.total_batch * (2 if self.preset.has_discriminator else 1)))

    @property
    def total_steps(self) -> int:
        return self.preset.max_train_steps

    @property
    def names(self) -> Names:
        return HYPIR_NAMES

    @property
    def saves(self) -> Cadence:
        return Cadence(every_n_steps=self.preset.checkpointing_steps)

    @property
    def keep(self) -> Keep:
        return Keep(step_files=self.preset.checkpoints_total_limit)

    @property
    def validation(self) -> Validation:
        preset = self.preset
        if self.held_out is None:
            return NO_VALIDATION
        cadence = Cadence(every_n_steps=preset.validation_steps)
        return Validation(cadence, HIGHER_IS_BETTER, SCORE if preset.save_best else "", first=True)

    @property
    def previews(self) -> Cadence:
        return Cadence(every_n_steps=self.preset.log_image_steps)

    @property
    def previews_first(self) -> bool:
        return True

    @property
    def workers(self) -> int:
        return min(self.preset.dataloader_num_workers, os.cpu_count() or 1)

    def data(self, rank: int, latent_channels: int) -> RestorationData:
        """The micro-batches of one process."""
        preset = self.preset
        crops = RestorationCrops(
            self.plan,
            open_store(self.pairs.pairs, preset.cache_gib, 1),
            Share(rank, self.world, preset.batch_size),
            self.pairs.prompts,
            preset.out_size,
            preset.crop_type,
            preset.use_hflip,
            preset.use_rot,
            preset.p_empty_prompt,
        )
        return RestorationData(crops, latent_channels, preset.judged_steps)

    @property
    def spoken(self) -> str:
        """One line for the log."""
        what = "pairs" if self.pairs.paired else "pictures to be degraded"
        return (
            f"{len(self.pairs.pairs)} {what}, squares of {self.preset.out_size} px, {self.total_batch} a step: "
            f"{self.steps_per_epoch} steps an epoch, {self.total_steps} in all"
        )


def inspect_restoration(loaded: Loaded, world: int, seed: int) -> RestorationJob:
    """Look at everything the preset names. Raises Refusal with all that is wrong."""
    preset = loaded.preset
    assert isinstance(preset, RestorationPreset)
    problems = restoration_problems(loaded)
    checkpoint, backbone = _networks(preset, problems)
    pairs = attempt(lambda: survey_restoration(training_sources(preset)), problems)
    held_out = attempt(lambda: survey_restoration(held_out_sources(preset)), problems) if preset.val_dir else None
    if held_out is not None:
        problems += too_small_to_measure(held_out.pairs)
    if problems or pairs is None:
        raise Refusal(*problems)
    pairs = replace(pairs, notes=(*pairs.notes, *enlarged(pairs.pairs, preset.out_size)))
    job = RestorationJob(preset, seed, world, {}, checkpoint, backbone, pairs, held_out)
    job.fingerprint.update(_fingerprint(loaded, job))
    return job


def check_restoration(loaded: Loaded) -> list[str]:
    """What can be said without opening a picture: what a run would ask the hub for. Raises Refusal."""
    preset = loaded.preset
    assert isinstance(preset, RestorationPreset)
    problems = restoration_problems(loaded)
    _networks(preset, problems, downloads=False)
    for key in ("train_dir", "dataroot_gt", "file_list", "val_dir"):
        named = getattr(preset, key)
        for place in (named,) if isinstance(named, str) else named:
            if place and not Path(place).exists():
                what = "file" if key == "file_list" else "folder"
                problems.append(loaded.wrong(f"{place}: there is no such {what}", key))
    if problems:
        raise Refusal(*problems)
    wanted = {"base_model_path": preset.base_model_path}
    if preset.has_discriminator:
        wanted["discriminator_backbone"] = preset.discriminator_backbone
    return [
        f"{key}: {place + ' is not here' if place else 'none is given'}, so the run asks the hub for it"
        for key, place in wanted.items()
        if _is_on_the_hub(place)
    ]


def training_sources(preset: RestorationPreset) -> RestorationSources:
    return RestorationSources(
        folders=preset.train_dir,
        lists=preset.file_list,
        originals=preset.dataroot_gt,
        kinds=preset.train_types,
        columns=Columns(preset.lq_key, preset.gt_key, preset.prompt_key),
        list_root=preset.image_path_prefix,
        clean_only=preset.high_order_degradation,
        prompt=preset.prompt,
        name_is_prompt=preset.use_filename_as_prompt,
        enlarge=0,
        cache_gib=preset.cache_gib,
    )


def held_out_sources(preset: RestorationPreset) -> RestorationSources:
    return RestorationSources(folders=(preset.val_dir,), kinds=preset.degradation_types, prompt=preset.val_prompt)


def _networks(
    preset: RestorationPreset, problems: list[str], *, downloads: bool = True
) -> tuple[Checkpoint | None, Path | None]:
    """Where the base model and the discriminator's backbone are. Without `downloads`, the hub's are left for later."""
    checkpoint = backbone = None
    base, judge = preset.base_model_path, preset.discriminator_backbone
    if base != STAND_IN and (downloads or not _is_on_the_hub(base)):
        checkpoint = attempt(lambda: find_base(base, "base_model_path"), problems)
    if preset.has_discriminator and (downloads or not _is_on_the_hub(judge)):
        backbone = attempt(lambda: find_backbone(judge, "discriminator_backbone"), problems)
    if preset.needs_lpips:
        attempt(lambda: find_lpips(preset.lpips_weights, "lpips_weights"), problems)
    return checkpoint, backbone


def _is_on_the_hub(place: str) -> bool:
    """A backbone that is not named is looked for there too."""
    return not place or (is_hub_name(place) and not Path(place).exists())


def _fingerprint(loaded: Loaded, job: RestorationJob) -> dict[str, Any]:
    """Everything that decides about the steps already made; `mixed_precision` is added when the device is known."""
    preset = job.preset
    facts = {key: value for key, value in loaded.steps_fingerprint().items() if key not in REPLACED}
    first = Path(preset.weight_path)
    return facts | {
        "seed": job.seed,
        "pairs per step": job.total_batch,
        "pictures": job.pairs.fingerprint(),
        "base model": weights_identity(job.checkpoint.path) if job.checkpoint else STAND_IN,
        "discriminator_backbone": weights_identity(job.backbone) if job.backbone else "none or stand-in",
        "lpips_weights": _lpips_identity(preset.lpips_weights) if preset.learns_with_lpips else "none",
        "weight_path": weights_identity(first) if preset.weight_path and first.is_file() else "none",
    }


def _lpips_identity(place: str) -> str:
    """Of the files of a folder, wherever it lies; of downloads and the stand-in the word."""
    files = lpips_files(Path(place)) if place and place != STAND_IN else ()
    return " ".join(weights_identity(file) for file in files) or place
