"""A LoRA training as far as it is known before a model is loaded: pictures, batches, length, what it depends on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.reader import Loaded
from lora_trainer.data.batches import BatchPlan
from lora_trainer.data.buckets import BucketSettings
from lora_trainer.data.captions import CaptionSettings
from lora_trainer.data.folders import Picture, read_folders
from lora_trainer.data.held_out import hold_out
from lora_trainer.data.survey import Sample, Summary, data_fingerprint, summarize, survey
from lora_trainer.engine.cadence import NEVER, Cadence
from lora_trainer.engine.hub import HubSettings
from lora_trainer.engine.kept_files import Keep
from lora_trainer.engine.validation import NO_VALIDATION, Validation
from lora_trainer.errors import Refusal
from lora_trainer.models.detect import Checkpoint, check_agreement, detect
from lora_trainer.models.weights_identity import weights_identity
from lora_trainer.trainers.job import Job
from lora_trainer.trainers.lora_checks import lora_problems
from lora_trainer.trainers.lora_resume import check_resume
from lora_trainer.trainers.sample_prompts import SamplePrompt, read_prompts

log = logging.getLogger(__name__)

REPLACED = (  # keys whose content, not whose spelling, says whether a run is the same
    "pretrained_model_name_or_path", "vae", "train_data_dir", "train_batch_size", "gradient_accumulation_steps",
    "mixed_precision", "seed", "network_weights",
)  # fmt: skip


@dataclass(frozen=True)
class LoraJob(Job):
    """A LoRA training with its base model, its pictures and its previews' prompts."""

    preset: LoraPreset
    checkpoint: Checkpoint
    samples: tuple[Sample, ...]
    summary: Summary
    prompts: tuple[SamplePrompt, ...]
    held_out: tuple[Sample, ...] = ()

    @property
    def total_batch(self) -> int:
        """Pictures per optimizer step, over all processes and accumulation passes."""
        return self.world * self.preset.train_batch_size * self.preset.gradient_accumulation_steps

    @property
    def plan(self) -> BatchPlan:
        buckets = [sample.placement.bucket_px for sample in self.samples]
        return BatchPlan(buckets, [sample.repeats for sample in self.samples], self.total_batch, self.seed)

    @property
    def saves(self) -> Cadence:
        return Cadence(self.preset.save_every_n_epochs, self.preset.save_every_n_steps)

    @property
    def keep(self) -> Keep:
        preset = self.preset
        return Keep(
            states=preset.save_state,
            state_at_end=preset.save_state_on_train_end,
            epoch_files=preset.save_last_n_epochs,
            step_files=preset.save_last_n_steps,
            epoch_states=preset.save_last_n_epochs_state or preset.save_last_n_epochs,
            step_states=preset.save_last_n_steps_state or preset.save_last_n_steps,
        )

    @property
    def hub(self) -> HubSettings | None:
        preset = self.preset
        if not preset.huggingface_repo_id:
            return None
        return HubSettings(
            preset.huggingface_repo_id.strip(),
            preset.huggingface_token.get_secret_value(),
            preset.huggingface_repo_type,
            preset.huggingface_repo_visibility == "private",
            preset.huggingface_path_in_repo.strip(),
            preset.async_upload,
            preset.save_state_to_huggingface,
        )

    @property
    def previews(self) -> Cadence:
        """Epochs come before steps; without prompts there is nothing to draw."""
        by_epoch = self.preset.sample_every_n_epochs
        return Cadence(by_epoch, 0 if by_epoch else self.preset.sample_every_n_steps) if self.prompts else NEVER

    @property
    def validation(self) -> Validation:
        preset = self.preset
        if not preset.validates:
            return NO_VALIDATION
        by_step = preset.validate_every_n_steps
        cadence = Cadence(0, by_step) if by_step else Cadence(preset.validate_every_n_epochs)
        best = "loss" if preset.save_best else ""
        return Validation(cadence, {"loss": False}, best, preset.early_stopping_patience, "loss")

    @property
    def validation_seed(self) -> int:
        return self.preset.validation_seed or self.seed

    @property
    def previews_first(self) -> bool:
        return self.preset.sample_at_first

    @property
    def workers(self) -> int:
        return min(self.preset.max_data_loader_n_workers, os.cpu_count() or 1)

    @property
    def steps_per_epoch(self) -> int:
        return self.plan.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """max_train_epochs before max_train_steps before epoch; an epoch is a complete pass over the data."""
        preset, steps_per_epoch = self.preset, self.steps_per_epoch
        if preset.max_train_epochs:
            return preset.max_train_epochs * steps_per_epoch
        return preset.max_train_steps or preset.epoch * steps_per_epoch


def inspect_lora(loaded: Loaded, world: int, seed: int) -> LoraJob:
    """Look at everything the preset names. Refusal with all that is wrong with the model and the pictures."""
    preset = loaded.preset
    assert isinstance(preset, LoraPreset)
    problems = lora_problems(loaded)
    checkpoint = _found(lambda: _base(preset), problems)
    prompts = _found(lambda: read_prompts(preset.sample_prompts, seed), problems)
    samples = _found(lambda: _samples(preset), problems)
    if preset.vae and not Path(preset.vae).exists():
        problems.append(f"vae: {preset.vae}: there is no such file or folder")
    parts = _found(lambda: _with_held_out(preset, samples, seed), problems) if samples else None
    if problems or checkpoint is None or parts is None or prompts is None:
        raise Refusal(*problems)
    trained, held_out = parts
    job = LoraJob(preset, seed, world, {}, checkpoint, trained, summarize(trained), prompts, held_out)
    job.fingerprint.update(_fingerprint(loaded, job))
    return job


def check_lora(loaded: Loaded) -> None:
    """What can be said in a second: the model's header, the folders and the captions, but no picture."""
    preset = loaded.preset
    assert isinstance(preset, LoraPreset)
    problems = lora_problems(loaded)
    _found(lambda: _base(preset), problems)
    _found(lambda: read_prompts(preset.sample_prompts, 0), problems)
    _found(lambda: _pictures(preset), problems)
    _found(lambda: check_resume(preset), problems)
    if problems:
        raise Refusal(*problems)


def bucket_settings(preset: LoraPreset) -> BucketSettings:
    return BucketSettings(
        preset.resolution_px,
        preset.min_bucket_reso,
        preset.max_bucket_reso,
        preset.bucket_reso_steps,
        upscale=not preset.bucket_no_upscale,
        enabled=preset.enable_bucket,
    )


def _base(preset: LoraPreset) -> Checkpoint:
    checkpoint = detect(Path(preset.pretrained_model_name_or_path))
    return check_agreement(checkpoint, sdxl=preset.sdxl, v2=preset.v2, v_parameterization=preset.v_parameterization)


def caption_settings(preset: LoraPreset) -> CaptionSettings:
    return CaptionSettings(**{each.name: getattr(preset, each.name) for each in fields(CaptionSettings)})


def _pictures(preset: LoraPreset) -> tuple[Picture, ...]:
    return read_folders(Path(preset.train_data_dir), preset.caption_extension, preset.enable_wildcard)


def _samples(preset: LoraPreset) -> tuple[Sample, ...]:
    return survey(_pictures(preset), bucket_settings(preset))


def _with_held_out(
    preset: LoraPreset, samples: tuple[Sample, ...], seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """What is trained, and what is measured."""
    trained, held_out = samples, tuple[Sample, ...]()
    if preset.validation_data_dir:
        pictures = read_folders(
            Path(preset.validation_data_dir), preset.caption_extension, preset.enable_wildcard, "validation_data_dir"
        )
        held_out = survey(pictures, bucket_settings(preset))
    elif preset.validation_split:
        trained, held_out = hold_out(samples, preset.validation_split, preset.validation_seed or seed)
    return trained, held_out[: preset.max_validation_steps or None]


def _found(look: Callable[[], Any], problems: list[str]) -> Any:
    """What a look finds, or None with its problems added, so that a person hears of all of them at once."""
    try:
        return look()
    except Refusal as refusal:
        problems.extend(refusal.problems)
        return None


def _fingerprint(loaded: Loaded, job: LoraJob) -> dict[str, Any]:
    """Everything that decides about the steps already made; `mixed_precision` is added when the device is known."""
    preset = job.preset
    facts = {key: value for key, value in loaded.steps_fingerprint().items() if key not in REPLACED}
    return facts | {
        "seed": job.seed,
        "pictures per step": job.total_batch,
        "pictures and captions": data_fingerprint(job.samples),
        "base model": weights_identity(job.checkpoint.path),
        "vae": weights_identity(Path(preset.vae)) if preset.vae else "the base model's",
        "network_weights": weights_identity(Path(preset.network_weights)) if preset.network_weights else "none",
    }
