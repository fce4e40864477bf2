"""What a dry run tells of a LoRA training before its trial step."""

from __future__ import annotations

import torch
from torch import nn

from lora_trainer.models.checkpoint import KIND_WORDS
from lora_trainer.trainers.diffusion_base import parts_of
from lora_trainer.trainers.lora import LoraTrainer


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
        ("memory", ", ".join(f"{name} {_spoken(size)}" for name, size in memory_bytes(trainer).items())),
    ]


def memory_bytes(trainer: LoraTrainer) -> dict[str, int]:
    """What each component holds, before activations: those depend on the batch, and the trial step shows them."""
    sizes: dict[str, int] = {part: _bytes(model) for part, model in parts_of(trainer.base).items()}
    trained = sum(weight.numel() for weight in trainer.phases[0].weights.values())
    optimizer = trainer.job.preset.optimizer.lower()
    moments = (1 if optimizer.endswith("8bit") else 4) * (1 if "lion" in optimizer else 2)
    sizes["vae"] = _bytes(trainer.base.vae)
    sizes["gradients"] = trained * 4
    sizes["optimizer"] = trained * moments
    if trainer.job.preset.caches_latents:
        sizes["latents in memory"] = _latent_bytes(trainer)
    return sizes


def _spoken(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**29 else f"{size / 2**20:.1f} MiB"


def _bytes(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def _latent_bytes(trainer: LoraTrainer) -> int:
    if trainer.job.preset.cache_latents_to_disk:
        return 0
    itemsize = 2 if trainer.base.vae.dtype != torch.float32 else 4
    versions = 2 if any(subset.flip_aug for subset in trainer.job.subsets) else 1
    pixels = sum(sample.placement.bucket_px[0] * sample.placement.bucket_px[1] for sample in trainer.job.samples)
    return pixels // 64 * 4 * 2 * versions * itemsize
