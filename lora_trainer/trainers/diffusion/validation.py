"""The loss on held-out pictures, always at the same timesteps and with the same noise.

Letters: b batch, c channels, h w latent pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lora_trainer.data.buckets import size_condition
from lora_trainer.data.latent_encoding import read_pixels
from lora_trainer.data.survey import Sample
from lora_trainer.draws import torch_generator
from lora_trainer.engine.precision import Precision
from lora_trainer.trainers.diffusion.model import DiffusionModel
from lora_trainer.trainers.diffusion.objective import Objective, encode
from lora_trainer.trainers.diffusion.sampling import evaluating
from lora_trainer.trainers.diffusion.text import CaptionTokens

TIMESTEPS = (100, 300, 500, 700, 900)  # of 1000: from fine detail to what the picture is of


@dataclass(frozen=True)
class HeldOut:
    """A picture as it is measured: the mean of its latents, and what the model is told."""

    name: str
    caption: str
    latents: Tensor  # (c, h, w), on the CPU
    size_condition: Tensor


def encode_held_out(samples: Sequence[Sample], captions: Sequence[str], vae: Any) -> tuple[HeldOut, ...]:
    """The pictures with these captions. The VAE's noise plays no part in a measurement. Raises Refusal."""
    scale = float(vae.config.scaling_factor)
    found = []
    for sample, caption in zip(samples, captions, strict=True):
        mean, _ = encode(vae, read_pixels(sample)[None])
        told = size_condition(*sample.size_px, sample.placement, mirrored=False)
        found.append(HeldOut(sample.name, caption, mean[0].cpu() * scale, torch.tensor(told, dtype=torch.float32)))
    return tuple(found)


@dataclass
class DiffusionValidator:
    """Measures the model as it is; the numbers of two measurements can be compared."""

    model: DiffusionModel
    objective: Objective
    held_out: Sequence[HeldOut]
    tokens: CaptionTokens
    precision: Precision
    seed: int
    batch_size: int

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The mean loss over pictures and timesteps, before any weight of a timestep; and that of each timestep."""
        device = self.objective.device
        sums = {timestep: torch.zeros((), device=device) for timestep in TIMESTEPS}
        with evaluating(self.model), self.precision.autocast():
            for group in self._batches():
                for timestep in TIMESTEPS:
                    losses = self.objective.plain(self.model, self._batch(group, timestep, device))
                    sums[timestep] += losses.float().sum()
        means = {timestep: float(total) / len(self.held_out) for timestep, total in sums.items()}
        by_timestep = {f"loss_t{timestep}": mean for timestep, mean in means.items()}
        return {"loss": sum(means.values()) / len(means), **by_timestep}

    def _batches(self) -> Iterator[list[HeldOut]]:
        """Pictures of one size each."""
        by_size: dict[tuple[int, ...], list[HeldOut]] = {}
        for picture in self.held_out:
            by_size.setdefault(tuple(picture.latents.shape), []).append(picture)
        for pictures in by_size.values():
            for at in range(0, len(pictures), self.batch_size):
                yield pictures[at : at + self.batch_size]

    def _batch(self, group: Sequence[HeldOut], timestep: int, device: torch.device) -> dict[str, Any]:
        latents = torch.stack([picture.latents for picture in group])
        noise = torch.stack([self._noise(picture, timestep) for picture in group])
        batch = {
            "latents": latents,
            "noise": noise,
            "timestep": torch.full((len(group),), timestep),
            "size_condition": torch.stack([picture.size_condition for picture in group]),
            **self.tokens.batch([picture.caption for picture in group]),
        }
        return {key: _moved(value, device) for key, value in batch.items()}

    def _noise(self, picture: HeldOut, timestep: int) -> Tensor:
        generator = torch_generator(self.seed, "validation", picture.name, timestep)
        return torch.randn(picture.latents.shape, generator=generator)


def _moved(value: Any, device: torch.device) -> Any:
    return tuple(part.to(device) for part in value) if isinstance(value, tuple) else value.to(device)
