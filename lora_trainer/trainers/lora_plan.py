"""What a dry run tells of a LoRA training before its trial step."""

from __future__ import annotations

import torch
from torch import nn

from lora_trainer.models.checkpoint import KIND_WORDS
from lora_trainer.trainers.lora import LoraTrainer, parts_of

GIB = 2**30


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
        ("memory", ", ".join(f"{name} {size:.2f} GiB" for name, size in memory_gib(trainer).items())),
    ]


def memory_gib(trainer: LoraTrainer) -> dict[str, float]:
    """What each component holds, before activations: those depend on the batch, and the trial step shows them."""
    sizes = {part: _bytes(model) / GIB for part, model in parts_of(trainer.base).items()}
    trained = sum(weight.numel() for weight in trainer.phases[0].weights.values())
    eight_bit = trainer.job.preset.optimizer.lower().endswith("8bit")
    moments = (1 if eight_bit else 4) * (1 if "lion" in trainer.job.preset.optimizer.lower() else 2)
    sizes["vae"] = _bytes(trainer.base.vae) / GIB
    sizes["gradients"] = trained * 4 / GIB
    sizes["optimizer"] = trained * moments / GIB
    if trainer.job.preset.caches_latents:
        sizes["latents in memory"] = _latent_bytes(trainer) / GIB
    return sizes


def _bytes(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def _latent_bytes(trainer: LoraTrainer) -> int:
    if trainer.job.preset.cache_latents_to_disk:
        return 0
    itemsize = 2 if trainer.base.vae.dtype != torch.float32 else 4
    versions = 2 if trainer.job.preset.flip_aug else 1
    pixels = sum(sample.placement.bucket_px[0] * sample.placement.bucket_px[1] for sample in trainer.job.samples)
    return pixels // 64 * 4 * 2 * versions * itemsize
