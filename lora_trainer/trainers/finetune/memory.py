"""What a fine-tuning needs of a GPU's memory, and which keys would make it less."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from lora_trainer.config.finetune import FinetunePreset, estimates_one_rate
from lora_trainer.engine.precision import DTYPES, Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.trainers.diffusion.fit import Measure, Rows, card_bytes, memory_rows, other_optimizer, rung_measures
from lora_trainer.trainers.diffusion.ladder import climb, rung_of
from lora_trainer.trainers.diffusion.memory import Choices, DiffusionMemory, Owner, vae_format
from lora_trainer.trainers.diffusion.model import DiffusionModel
from lora_trainer.trainers.finetune.trainer import FinetuneTrainer
from lora_trainer.trainers.finetune.vae import VaeTrainer


def fit_finetune(trainer: FinetuneTrainer | VaeTrainer, processes: Processes, precision: Precision) -> None:
    """What the preset leaves to the machine."""
    if isinstance(trainer, FinetuneTrainer) and trainer.job.preset.gradient_checkpointing == "auto":
        climb(trainer.base, trainer.phases[0], *_needed(trainer), processes, precision)


def finetune_memory_rows(trainer: FinetuneTrainer) -> Rows:
    """Rows of a dry run, for the card that is there, or else for those that there are."""
    memory, choices = _needed(trainer)
    measures = _measures(trainer.job.preset, memory.passes, trainer.job.world)
    return memory_rows(memory, choices, list(measures), card_bytes(trainer.base.unet.device))


def _needed(trainer: FinetuneTrainer) -> tuple[DiffusionMemory, Choices]:
    preset, device, phase = trainer.job.preset, trainer.base.unet.device, trainer.phases[0]
    passes = trainer.precision.dtype if device.type == "cuda" else DTYPES[preset.number_format]
    micro = max(trainer.data(trainer.largest_step), key=lambda each: len(each["names"]))
    vae = trainer.base.vae
    model = phase.module
    assert isinstance(model, DiffusionModel)
    memory = DiffusionMemory(model, phase.weights, micro, passes, vae, vae_format(vae, passes))
    choices = Choices(
        _owners(preset, list(phase.weights)),
        rung=rung_of(trainer.base.unet),
        fused=phase.fused,
        rounded=phase.rounding_seed is not None,
        gradients_stay=preset.grad_accum > 1 or trainer.job.world > 1,
        encodes=not preset.caches_latents,
        average=preset.averages and preset.ema_place is None,
    )
    return memory, choices


def _owners(preset: FinetunePreset, names: list[str]) -> list[Owner]:
    of_unet = [name for name in names if name.startswith("unet.")]
    of_text = [name for name in names if not name.startswith("unet.")]
    found = [
        Owner(preset.optimizer, preset.optimizer_options, of_unet),
        Owner(preset.text_encoder_optimizer_name, preset.text_encoder_optimizer_options, of_text),
    ]
    return [owner for owner in found if owner.weights]


def _measures(preset: FinetunePreset, passes: torch.dtype, world: int) -> Iterator[Measure]:
    """What the preset has not done yet, with what costs least first."""
    yield from rung_measures()
    yield Measure("cache_latents", lambda choices: replace(choices, encodes=False))
    yield Measure("ema_device cpu", lambda choices: replace(choices, average=False))
    alone = not any(estimates_one_rate(name) for name in preset.optimizers.values())
    if alone and preset.grad_accum == 1 and not preset.clip_grad_norm and world == 1:
        words = "fused_backward_pass" + (" with mixed_precision bf16" if passes == torch.float16 else "")
        yield Measure(words, lambda choices: replace(choices, fused=True))
    yield Measure("optimizer AdamW8bit", other_optimizer("AdamW8bit"))
    free = any(name.endswith("ScheduleFree") for name in preset.optimizers.values())
    if alone and not free and passes != torch.float32:
        words = "full_bf16" + (" with mixed_precision bf16" if passes == torch.float16 else "")
        yield Measure(words, lambda choices: replace(choices, rounded=True))
    if preset.batch_size > 1:
        smaller = 1 / preset.batch_size
        yield Measure("batch_size 1", lambda choices: replace(choices, share=smaller))
