"""What a dry run tells of a LoRA training before its trial step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from lora_trainer.config.lora import LoraPreset
from lora_trainer.engine.precision import DTYPES, Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.models.checkpoint import KIND_WORDS
from lora_trainer.trainers.diffusion.fit import (
    Measure,
    Rows,
    card_bytes,
    memory_rows,
    other_optimizer,
    rung_measures,
    spoken,
)  # fmt: skip
from lora_trainer.trainers.diffusion.ladder import climb, rung_of
from lora_trainer.trainers.diffusion.memory import Choices, DiffusionMemory, Owner, vae_format
from lora_trainer.trainers.diffusion.model import DiffusionModel
from lora_trainer.trainers.lora.trainer import LoraTrainer


def plan_lora(trainer: LoraTrainer) -> list[tuple[str, str]]:
    """Rows of a name and a text."""
    job, base = trainer.job, trainer.base
    summary = job.summary
    trained = trainer.phases[0].weights
    numbers = sum(weight.numel() for weight in trained.values())
    layers = {part: len(names) for part, names in trainer.names.items()}
    buckets = ", ".join(f"{width} x {height}: {count}" for (height, width), count in sorted(summary.uses_in.items()))
    folders = ", ".join(
        f"{name} ({count} pictures, {summary.repeats_of[name]} times)" for name, count in summary.pictures_in.items()
    )
    return [
        ("base model", f"{job.checkpoint.path} ({KIND_WORDS[base.kind]}, predicts {base.prediction})"),
        ("pictures", f"{summary.pictures} in {folders}; {summary.uses} an epoch"),
        ("buckets", buckets),
        ("trained", f"{numbers:,} numbers in {', '.join(f'{n} layers of {part}' for part, n in layers.items())}"),
        *memory_of(trainer),
        *([("latents in memory", spoken(_latent_bytes(trainer)))] if job.preset.caches_latents else []),
    ]


def fit_lora(trainer: LoraTrainer, processes: Processes, precision: Precision) -> None:
    """What the preset leaves to the machine."""
    if trainer.job.preset.gradient_checkpointing == "auto":
        climb(trainer.base, trainer.phases[0], *needed(trainer), processes, precision)


def memory_of(trainer: LoraTrainer) -> Rows:
    """What the training needs of the card that is there, or else of those that there are."""
    memory, choices = needed(trainer)
    return memory_rows(memory, choices, list(_measures(trainer.job.preset)), card_bytes(trainer.base.unet.device))


def needed(trainer: LoraTrainer) -> tuple[DiffusionMemory, Choices]:
    """What the memory plan is made of: the models with a micro-batch of the largest step, and what the preset says."""
    preset, device, phase, base = trainer.job.preset, trainer.base.unet.device, trainer.phases[0], trainer.base
    passes = base.unet.dtype if device.type == "cuda" else DTYPES[preset.mixed_precision]
    micro = max(trainer.data(trainer.largest_step), key=lambda each: len(each["names"]))
    form = vae_format(base.vae, passes, full=preset.sdxl_no_half_vae)
    model = phase.module
    assert isinstance(model, DiffusionModel)
    memory = DiffusionMemory(model, phase.weights, micro, passes, base.vae, form, text_stays="token_ids" in micro)
    choices = Choices(
        [Owner(preset.optimizer, preset.optimizer_options, list(phase.weights))],
        rung=rung_of(base.unet),
        gradients_stay=preset.gradient_accumulation_steps > 1 or trainer.job.world > 1,
        encodes=not preset.caches_latents,
    )
    return memory, choices


def _measures(preset: LoraPreset) -> Iterator[Measure]:
    """What would make it less, with what costs least first."""
    yield Measure("cache_latents", lambda choices: replace(choices, encodes=False))
    yield from rung_measures()
    yield Measure("optimizer AdamW8bit", other_optimizer("AdamW8bit"))
    if preset.batch_size > 1:
        yield Measure("train_batch_size 1", lambda choices: replace(choices, share=1 / preset.batch_size))


def _latent_bytes(trainer: LoraTrainer) -> int:
    if trainer.job.preset.cache_latents_to_disk:
        return 0
    itemsize = 2 if trainer.base.vae.dtype != torch.float32 else 4
    versions = 2 if any(subset.flip_aug for subset in trainer.job.subsets) else 1
    pixels = sum(sample.placement.bucket_px[0] * sample.placement.bucket_px[1] for sample in trainer.job.samples)
    return pixels // 64 * 4 * 2 * versions * itemsize
