"""The micro-batches of a fine-tuning: captions, latents or pixels, noise and timesteps, as a function of the step.

Everything random is drawn here, on the CPU, keyed by (seed, step, position in the step's whole batch), so that neither
the number of loader processes nor the sharing of the batch changes it.
Letters: b batch, c channels, h w latent pixels, n tokens, d width of the encoded text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lora_trainer.data.batches import Share, micro_positions
from lora_trainer.data.buckets import VAE_STEP_PX, size_condition
from lora_trainer.data.everydream.epochs import EpochBatch, EpochPlan
from lora_trainer.data.everydream.placing import with_jitter
from lora_trainer.data.everydream.usage import Usage
from lora_trainer.data.latent_cache import LatentCache
from lora_trainer.data.latent_encoding import read_pixels
from lora_trainer.draws import torch_generator
from lora_trainer.losses.noise import offset_noise
from lora_trainer.losses.pyramid_noise import caption_perturbation, pyramid_noise
from lora_trainer.losses.timesteps import uniform_timestep
from lora_trainer.trainers.diffusion.text import CaptionTokens
from lora_trainer.trainers.finetune.pictures import PictureSet

LATENT_CHANNELS = 4


@dataclass(frozen=True)
class FinetuneNoise:
    """EveryDream2's noise keys; 0 switches each of them off. ``text_shape`` is (n, d) of an encoded caption."""

    offset: float = 0.0
    pyramid_discount: float = 0.0
    text_perturbation: float = 0.0
    text_shape: tuple[int, int] = (77, 768)
    first_timestep: int = 0
    end_timestep: int = 1000


@dataclass
class FinetuneData:
    """`data(step)` is the list of this process's micro-batches. Pickled into loader processes.

    Beside what a LoRA's have, they hold `loss_weight` (b,), of the picture and of a filled batch, and `text_noise`
    (b, n, d) where encoded captions are perturbed.
    """

    pictures: PictureSet
    plan: EpochPlan
    usage: Usage
    tokens: CaptionTokens
    noise: FinetuneNoise
    share: Share
    latents: LatentCache | None  # None: the VAE encodes in every step
    latent_scale: float
    crop_jitter: float = 0.0

    def __call__(self, step: int) -> list[dict[str, Any]]:
        batch = self.plan.planned(step)
        return [self._micro(step, batch, positions) for positions in micro_positions(batch.items, self.share)]

    def _micro(self, step: int, batch: EpochBatch, positions: Sequence[int]) -> dict[str, Any]:
        """One forward pass. A process without a picture of its own gets one that counts nothing: the others wait for
        its gradients."""
        weights = torch.ones(len(positions)) if positions else torch.zeros(1)
        rows = [self._row(step, position, batch) for position in positions or (0,)]
        micro: dict[str, Any] = {
            key: torch.stack([row[key] for row in rows]) for key, value in rows[0].items() if torch.is_tensor(value)
        }
        micro |= self.tokens.batch([row["caption"] for row in rows])
        names = [row["name"] for row in rows]
        return {**micro, "names": names, "weights": weights, "total": len(batch.items)}

    def _row(self, step: int, position: int, batch: EpochBatch) -> dict[str, Any]:
        index = batch.items[position]
        item, sample = self.pictures.items[index], self.pictures.samples[index]
        key = (self.plan.seed, step, position)
        mirrored = self.usage.mirrored(item, *key)
        placement = sample.placement
        if self.latents is None and self.crop_jitter:
            placement = with_jitter(placement, self.crop_jitter, *key)
        timestep = uniform_timestep(self.noise.first_timestep, self.noise.end_timestep, *key, "timestep")
        told = size_condition(*sample.size_px, placement, mirrored=mirrored)
        height, width = (px // VAE_STEP_PX for px in placement.bucket_px)
        shape = (LATENT_CHANNELS, height, width)
        row: dict[str, Any] = {
            "name": sample.name,
            "caption": self.usage.caption(item, self.plan.epoch_of(step), *key),
            "timestep": torch.tensor(timestep),
            "size_condition": torch.tensor(told, dtype=torch.float32),
            "noise": self._noise(shape, *key),
            "loss_weight": torch.tensor(item.settings.loss_scale * batch.loss_scale),
        }
        vae_noise = torch.randn(shape, generator=torch_generator(*key, "vae"))
        if self.latents is not None:
            mean, std = self.latents.get(index, mirrored)
            row["latents"] = (mean.float() + std.float() * vae_noise) * self.latent_scale
        else:
            pixels = read_pixels(sample, placement)
            row["pixels"] = pixels.flip(-1) if mirrored else pixels
            row["vae_noise"] = vae_noise
        if self.noise.text_perturbation:
            generator = torch_generator(*key, "text noise")
            row["text_noise"] = caption_perturbation(*self.noise.text_shape, self.noise.text_perturbation, generator)
        return row

    def _noise(self, shape: tuple[int, int, int], *key: int) -> Tensor:
        """(c, h, w)"""
        noise = torch.randn(shape, generator=torch_generator(*key, "noise"))
        if self.noise.pyramid_discount:
            noise = pyramid_noise(noise, self.noise.pyramid_discount, torch_generator(*key, "pyramid"))
        if self.noise.offset:
            noise = offset_noise(noise, self.noise.offset, torch_generator(*key, "noise offset"))
        return noise
