"""The micro-batches of a diffusion step: captions, latents or pixels, noise and timesteps, as a function of the step.

Everything random is drawn here, on the CPU, keyed by (seed, step, position in the step's whole batch), so that neither
the number of loader processes nor the sharing of the batch changes it.
Letters: b batch, c channels, h w latent pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lora_trainer.data.batches import BatchPlan, Share, micro_positions
from lora_trainer.data.buckets import VAE_STEP_PX, Placement, size_condition, with_random_crop
from lora_trainer.data.captions import Moment, choose_caption
from lora_trainer.data.color_augmentation import shift_colours
from lora_trainer.data.latent_cache import LatentCache
from lora_trainer.data.latent_encoding import read_pixels
from lora_trainer.data.masks import read_mask
from lora_trainer.data.subsets import Subset
from lora_trainer.data.survey import Sample
from lora_trainer.draws import draw_key, torch_generator, uniform
from lora_trainer.losses.noise import multires_noise, offset_direction, offset_noise, perturbed, random_strength
from lora_trainer.losses.timesteps import uniform_timestep
from lora_trainer.trainers.diffusion.text import CaptionTokens

LATENT_CHANNELS = 4
Shape = tuple[int, int, int]  # c, h, w


@dataclass(frozen=True)
class NoiseSettings:
    """kohya's noise keys; 0 switches each of them off."""

    offset: float = 0.0
    offset_random_strength: bool = False
    offset_adaptive_scale: float = 0.0
    multires_iterations: int = 0
    multires_discount: float = 0.3
    input_gamma: float = 0.0
    input_gamma_random_strength: bool = False
    min_timestep: int = 0
    max_timestep: int = 1000


@dataclass
class DiffusionData:
    """`data(step)` is the list of this process's micro-batches. Pickled into loader processes."""

    samples: Sequence[Sample]
    subsets: Sequence[Subset]
    plan: BatchPlan
    tokens: CaptionTokens
    noise: NoiseSettings
    shares: Sequence[Share]  # of each data set
    latents: LatentCache | None  # None: the VAE encodes in every step
    latent_scale: float
    prior_weight: float = 1.0  # of the loss of regularisation pictures
    total_steps: int = 0
    layers_draw: bool = False  # whether the trained layers draw random numbers in a pass

    def __post_init__(self) -> None:
        self._has_regularisation = any(sample.is_reg for sample in self.samples)
        self._has_masks = any(sample.mask is not None or sample.alpha_mask for sample in self.samples)

    def __call__(self, step: int) -> list[dict[str, Any]]:
        batch = self.plan.batch_of(step)
        share = self.shares[self.subsets[self.samples[batch[0]].subset].dataset]
        return [self._micro(step, batch, positions) for positions in micro_positions(batch, share)]

    def _micro(self, step: int, batch: Sequence[int], positions: Sequence[int]) -> dict[str, Any]:
        """One forward pass. A process without a picture of its own gets one that counts nothing: the others wait for
        its gradients."""
        weights = torch.ones(len(positions)) if positions else torch.zeros(1)
        rows = [self._sample(step, position, batch[position]) for position in positions or (0,)]
        micro = stacked(rows, self.tokens)
        if self.layers_draw:
            first = positions[0] if positions else -1 - self.shares[0].rank
            micro["layer_seed"] = draw_key(self.plan.seed, step, first, "layers") & 0x7FFF_FFFF_FFFF_FFFF
        return {**micro, "weights": weights, "total": len(batch)}

    def _sample(self, step: int, position: int, item: int) -> dict[str, Any]:
        sample = self.samples[item]
        seed = self.plan.seed
        key = (seed, step, position)
        subset, placement = self.subsets[sample.subset], sample.placement
        if subset.random_crop:
            placement = with_random_crop(placement, *key, "crop")
        mirrored = subset.flip_aug and uniform(*key, "flip") < 0.5
        moment = Moment(self.plan.epoch_of(step) + 1, step, self.total_steps)
        row: dict[str, Any] = {
            "name": sample.name,
            "caption": choose_caption(sample.caption, subset.captions, moment, *key),
            "timestep": torch.tensor(
                uniform_timestep(self.noise.min_timestep, self.noise.max_timestep, *key, "timestep")
            ),
            "size_condition": torch.tensor(
                size_condition(*sample.size_px, placement, mirrored=mirrored), dtype=torch.float32
            ),
        }
        height, width = (px // VAE_STEP_PX for px in sample.placement.bucket_px)
        shape = (LATENT_CHANNELS, height, width)
        row |= noise_row(self.noise, seed, step, position, shape)
        vae_noise = torch.randn(shape, generator=torch_generator(*key, "vae"))
        if self.latents is not None:
            mean, std = self.latents.get(item, mirrored)
            row["latents"] = (mean.float() + std.float() * vae_noise) * self.latent_scale
        else:
            shift = (lambda image: shift_colours(image, *key, "colours")) if subset.color_aug else None
            pixels = read_pixels(sample, placement, shift)
            row["pixels"] = pixels.flip(-1) if mirrored else pixels
            row["vae_noise"] = vae_noise
        if self._has_regularisation:
            row["loss_weight"] = torch.tensor(self.prior_weight if sample.is_reg else 1.0)
        if self._has_masks:
            mask = self._mask(sample, placement)
            row["mask"] = mask.flip(-1) if mirrored else mask
        return row

    def _mask(self, sample: Sample, placement: Placement) -> Tensor:
        if sample.mask is None and not sample.alpha_mask:
            return torch.ones(1, *(px // VAE_STEP_PX for px in placement.bucket_px))
        return read_mask(sample.mask or sample.path, placement, alpha=sample.mask is None)


def stacked(rows: Sequence[dict[str, Any]], tokens: CaptionTokens) -> dict[str, Any]:
    """The samples of a forward pass as one batch, with the names of their pictures."""
    micro: dict[str, Any] = {
        key: torch.stack([row[key] for row in rows]) for key, value in rows[0].items() if torch.is_tensor(value)
    }
    return {**micro, **tokens.batch([row["caption"] for row in rows]), "names": [row["name"] for row in rows]}


def noise_row(settings: NoiseSettings, seed: int, step: int, position: int, shape: Shape) -> dict[str, Tensor]:
    """The target noise of a sample, and what its input is noised with when that differs. (c, h, w) each."""
    key = (seed, step, position)
    noise = torch.randn(shape, generator=torch_generator(*key, "noise"))
    row: dict[str, Tensor] = {}
    if settings.offset:
        strength = settings.offset
        if settings.offset_random_strength:  # one number for the whole batch
            strength = random_strength(strength, torch_generator(seed, step, "noise offset strength"))
        generator = torch_generator(*key, "noise offset")
        if settings.offset_adaptive_scale:  # the strength depends on the latents, which the device may have to make
            row["offset_direction"] = offset_direction(shape[0], generator)
            row["offset_strength"] = torch.tensor(strength)
        else:
            noise = offset_noise(noise, strength, generator)
    if settings.multires_iterations:
        noise = multires_noise(
            noise, settings.multires_iterations, settings.multires_discount, torch_generator(*key, "multires")
        )
    row["noise"] = noise
    if settings.input_gamma:
        gamma = settings.input_gamma
        if settings.input_gamma_random_strength:
            gamma = random_strength(gamma, torch_generator(seed, step, "input perturbation strength"))
        # only the difference, because an adaptive offset is still to be added to both
        row["input_extra"] = perturbed(torch.zeros(shape), gamma, torch_generator(*key, "input perturbation"))
    return row
