"""A LoRA training as far as it is known before a model is loaded: pictures, batches, length, what it depends on."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.reader import Loaded
from lora_trainer.data.batches import BatchPlan
from lora_trainer.data.captions import CaptionSettings
from lora_trainer.data.subsets import DataSet, Subset, sets_fingerprint
from lora_trainer.data.survey import Sample, Summary, data_fingerprint, summarize
from lora_trainer.engine.cadence import NEVER, Cadence
from lora_trainer.engine.hub import HubSettings
from lora_trainer.engine.kept_files import Keep
from lora_trainer.engine.validation import NO_VALIDATION, Validation
from lora_trainer.errors import Refusal
from lora_trainer.models.detect import Checkpoint, check_agreement, detect
from lora_trainer.models.weights_identity import weights_identity
from lora_trainer.trainers.diffusion.sample_prompts import SamplePrompt, read_prompts
from lora_trainer.trainers.job import Job, attempt
from lora_trainer.trainers.lora.checks import lora_problems
from lora_trainer.trainers.lora.data import data_sets, read_pictures, training_set
from lora_trainer.trainers.lora.resume import check_resume

log = logging.getLogger(__name__)

REPLACED = (  # keys whose content, not whose spelling, says whether a run is the same
    "pretrained_model_name_or_path", "vae", "train_data_dir", "train_batch_size", "gradient_accumulation_steps",
    "mixed_precision", "seed", "network_weights", "reg_data_dir", "dataset_config", "conditioning_data_dir",
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
    sets: tuple[DataSet, ...] = ()

    @property
    def total_batch(self) -> int:
        """Pictures per optimizer step, over all processes and accumulation passes."""
        return max(self.total_batches)

    @property
    def total_batches(self) -> tuple[int, ...]:
        """The same for each data set."""
        passes = self.world * self.preset.gradient_accumulation_steps
        return tuple(passes * data_set.batch_size for data_set in self.sets)

    @property
    def subsets(self) -> tuple[Subset, ...]:
        """All folders, by the number that a sample has."""
        return tuple(subset for data_set in self.sets for subset in data_set.subsets)

    def captions_of(self, sample: Sample) -> CaptionSettings:
        return self.subsets[sample.subset].captions

    @property
    def cache_folder(self) -> Path:
        """Where what is encoded once is kept on disk."""
        described = self.preset.dataset_config
        return Path(described).parent if described else Path(self.preset.train_data_dir)

    @property
    def plan(self) -> BatchPlan:
        buckets = [sample.placement.bucket_px for sample in self.samples]
        repeats = [sample.repeats for sample in self.samples]
        datasets = [self.subsets[sample.subset].dataset for sample in self.samples]
        return BatchPlan(buckets, repeats, self.total_batches, self.seed, datasets)

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
        if not self.held_out:
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
    checkpoint = attempt(lambda: _base(preset), problems)
    prompts = attempt(lambda: read_prompts(preset.sample_prompts, seed), problems)
    found = attempt(lambda: training_set(preset, seed), problems)
    if preset.vae and not Path(preset.vae).exists():
        problems.append(f"vae: {preset.vae}: there is no such file or folder")
    if problems or checkpoint is None or found is None or prompts is None:
        raise Refusal(*problems)
    summary = summarize(found.samples)
    job = LoraJob(preset, seed, world, {}, checkpoint, found.samples, summary, prompts, found.held_out, found.sets)
    job.fingerprint.update(_fingerprint(loaded, job))
    return job


def check_lora(loaded: Loaded) -> None:
    """What can be said in a second: the model's header, the folders and the captions, but no picture."""
    preset = loaded.preset
    assert isinstance(preset, LoraPreset)
    problems = lora_problems(loaded)
    attempt(lambda: _base(preset), problems)
    attempt(lambda: read_prompts(preset.sample_prompts, 0), problems)
    attempt(lambda: read_pictures(preset, data_sets(preset)), problems)
    attempt(lambda: check_resume(preset), problems)
    if problems:
        raise Refusal(*problems)


def _base(preset: LoraPreset) -> Checkpoint:
    checkpoint = detect(Path(preset.pretrained_model_name_or_path))
    return check_agreement(checkpoint, sdxl=preset.sdxl, v2=preset.v2, v_parameterization=preset.v_parameterization)


def _fingerprint(loaded: Loaded, job: LoraJob) -> dict[str, Any]:
    """Everything that decides about the steps already made; `mixed_precision` is added when the device is known."""
    preset = job.preset
    facts = {key: value for key, value in loaded.steps_fingerprint().items() if key not in REPLACED}
    return facts | {
        "seed": job.seed,
        "pictures per step": job.total_batch,
        "pictures and captions": data_fingerprint(job.samples),
        "dataset_config": sets_fingerprint(job.sets) if preset.dataset_config else "none",
        "base model": weights_identity(job.checkpoint.path),
        "vae": weights_identity(Path(preset.vae)) if preset.vae else "the base model's",
        "network_weights": weights_identity(Path(preset.network_weights)) if preset.network_weights else "none",
    }
