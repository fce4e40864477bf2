"""A fine-tuning as far as it is known before a model is loaded: pictures, batches, length, what it depends on."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.config.finetune_saving import OF_ALL_PICTURES, STABILIZED
from lora_trainer.config.finetune_vae_rules import unread_keys
from lora_trainer.config.reader import Loaded
from lora_trainer.data.everydream.epochs import EpochPlan
from lora_trainer.data.everydream.pictures import items_fingerprint
from lora_trainer.data.survey import data_fingerprint
from lora_trainer.engine.cadence import NEVER, Cadence, Length
from lora_trainer.engine.kept_files import Names
from lora_trainer.engine.validation import NO_VALIDATION, Validation
from lora_trainer.errors import Refusal
from lora_trainer.losses.hues import HUES
from lora_trainer.models.checkpoint import Checkpoint
from lora_trainer.models.fresh_description import trained_files
from lora_trainer.models.weights_identity import weights_identity
from lora_trainer.trainers.finetune.checks import (
    base_model,
    check_model_folder,
    finetune_problems,
    first_average,
    prompt_file,
)
from lora_trainer.trainers.finetune.names import AVERAGED, EveryDreamNames
from lora_trainer.trainers.finetune.pictures import (
    FinetunePictures,
    epoch_plan,
    find_items,
    finetune_pictures,
)
from lora_trainer.trainers.finetune.prompts import PromptFile
from lora_trainer.trainers.job import Job, attempt

log = logging.getLogger(__name__)

REPLACED = (  # keys whose content, not whose spelling, says whether a run is the same
    "resume_ckpt", "data_root", "batch_size", "grad_accum", "seed", "mixed_precision", "disable_amp",
    "ema_resume_model", "lowvram",
)  # fmt: skip
PSNR_OF = ("psnr", "psnr_turned", *(f"psnr_{hue}" for hue in HUES))  # of all, of them with other hues, with a colour


@dataclass(frozen=True)
class FinetuneJob(Job):
    """A fine-tuning with its base model, its pictures and its previews' prompts."""

    preset: FinetunePreset
    checkpoint: Checkpoint
    pictures: FinetunePictures
    prompts: PromptFile

    @property
    def total_batch(self) -> int:
        """Pictures per optimizer step, over all processes and accumulation passes."""
        return self.world * self.preset.batch_size * self.preset.grad_accum

    @cached_property
    def plan(self) -> EpochPlan:
        return epoch_plan(self.preset, self.pictures.trained, self.total_batch, self.seed)

    @property
    def steps_per_epoch(self) -> int:
        return self.plan.steps_per_epoch

    @property
    def total_steps(self) -> int:
        return self.plan.steps_before(self.preset.max_epochs)

    @property
    def epoch_ends(self) -> tuple[int, ...]:
        if not self.preset.rated_dataset:
            return ()
        return tuple(self.plan.steps_before(epoch + 1) for epoch in range(self.preset.max_epochs))

    @property
    def mixed_precision(self) -> str:
        return self.preset.number_format

    @property
    def saves(self) -> Cadence:
        first = max(1, self.preset.save_ckpts_from_n_epochs)
        return Cadence(self.preset.save_every_n_epochs, first_epoch=first)

    @property
    def save_minutes(self) -> float:
        return self.preset.minutes_between_models

    @property
    def names(self) -> Names:
        length = Length(self.total_steps, self.steps_per_epoch, self.epoch_ends)
        return EveryDreamNames(length, prepend_last=not self.preset.no_prepend_last)

    @property
    def previews(self) -> Cadence:
        """The file of the prompts comes before the preset."""
        said = self.prompts.every_n_steps
        return Cadence(0, self.preset.sample_steps if said is None else said) if self.prompts.prompts else NEVER

    @property
    def previews_first(self) -> bool:
        return self.prompts.before_training

    @property
    def validation(self) -> Validation:
        if not self.pictures.measured:
            return NO_VALIDATION
        names = [name for name, _ in self.pictures.measured]
        names += [OF_ALL_PICTURES] if len([name for name in names if name != STABILIZED]) > 1 else []
        return Validation(self._measuring, {f"loss/{name}": False for name in names}, first=True)

    @property
    def _measuring(self) -> Cadence:
        every = self.preset.val_every_n_epochs
        whole = every == int(every)
        return Cadence(int(every)) if whole else Cadence(0, max(1, round(every * self.steps_per_epoch)))

    @property
    def begins_with_random_vae(self) -> bool:
        return self.checkpoint.layout == "description" and not trained_files(self.checkpoint.path)

    @property
    def validation_seed(self) -> int:
        return self.preset.val_seed or self.seed

    @property
    def captions(self) -> tuple[str, ...]:
        """Of the trained pictures, with all their tags."""
        return tuple(item.caption.text for item in self.pictures.trained.items)

    @property
    def spoken(self) -> str:
        """One line for the log."""
        trained = self.pictures.trained
        shapes = len({sample.placement.bucket_px for sample in trained.samples})
        return (
            f"{len(trained.items)} pictures in {shapes} shapes, {self.total_batch} a step: "
            f"{self.steps_per_epoch} steps an epoch, {self.total_steps} in all"
        )

    @property
    def average_warning(self) -> str:
        """What to tell of an average that stays as it begins, or nothing."""
        every = self.preset.ema_update_interval
        if not self.preset.averages or every <= self.total_steps:
            return ""
        text = f"the average is never updated: ema_update_interval is {every}, and the run has {self.total_steps} steps"
        return f"{text}; make it smaller"

    @property
    def workers(self) -> int:
        return min(self.preset.max_data_loader_n_workers, os.cpu_count() or 1)


@dataclass(frozen=True)
class VaeJob(FinetuneJob):
    """A training of the VAE: its pictures are measured by PSNR, and shown beside what becomes of them."""

    @property
    def previews(self) -> Cadence:
        return Cadence(0, self.preset.sample_steps) if self.preset.sample_steps else NEVER

    @property
    def previews_first(self) -> bool:
        return True

    @property
    def validation(self) -> Validation:
        if not self.pictures.measured:
            return NO_VALIDATION
        versions = ("", AVERAGED) if self.preset.averages else ("",)
        names = [f"{name}{version}" for name, _ in self.pictures.measured for version in versions]
        return Validation(self._measuring, {f"{key}/{name}": True for name in names for key in PSNR_OF}, first=True)


def inspect_finetune(loaded: Loaded, world: int, seed: int) -> FinetuneJob:
    """Look at everything the preset names. Raises Refusal with all that is wrong with the model and the pictures."""
    preset = loaded.preset
    assert isinstance(preset, FinetunePreset)
    problems = finetune_problems(loaded)
    checkpoint = attempt(lambda: base_model(preset), problems)
    pictures = attempt(lambda: finetune_pictures(preset, seed), problems)
    captions = tuple(item.caption.text for item in pictures.trained.items) if pictures else ()
    prompts = attempt(lambda: prompt_file(preset, seed, captions), problems)
    attempt(lambda: check_model_folder(preset), problems)
    attempt(lambda: first_average(preset), problems)
    if problems or checkpoint is None or pictures is None or prompts is None:
        raise Refusal(*problems)
    for text in prompts.notes:
        log.info("without effect: %s", text)
    kind = VaeJob if preset.train_vae else FinetuneJob
    job = kind(preset, seed, world, {}, checkpoint, pictures, prompts)
    job.fingerprint.update(_fingerprint(loaded, job))
    return job


def check_finetune(loaded: Loaded) -> None:
    """What can be said in a second: the model's header, the folders and the captions, but no picture."""
    preset = loaded.preset
    assert isinstance(preset, FinetunePreset)
    problems = finetune_problems(loaded)
    if not loaded.follows:
        attempt(lambda: base_model(preset), problems)
    attempt(lambda: prompt_file(preset, preset.seed), problems)
    attempt(lambda: find_items(preset), problems)
    attempt(lambda: check_model_folder(preset), problems)
    if not loaded.follows:
        attempt(lambda: first_average(preset), problems)
    if problems:
        raise Refusal(*problems)


def _fingerprint(loaded: Loaded, job: FinetuneJob) -> dict[str, Any]:
    """Everything that decides about the steps already made; `mixed_precision` is added when the device is known."""
    preset, trained = job.preset, job.pictures.trained
    left_out = (*REPLACED, *unread_keys(preset))
    facts = {key: value for key, value in loaded.steps_fingerprint().items() if key not in left_out}
    settings = json.dumps(items_fingerprint(trained.items)).encode()
    average = first_average(preset)
    return facts | {
        "seed": job.seed,
        "pictures per step": job.total_batch,
        "pictures and captions": data_fingerprint(trained.samples),
        "settings of pictures": blake2b(settings, digest_size=8).hexdigest(),
        "base model": weights_identity(job.checkpoint.path),
        "epochs": preset.max_epochs if preset.rated_dataset else "any number",
        "first average": weights_identity(average) if average else "the base model",
    }
