"""What a diffusion step minimises: noised latents in, noise or velocity out, weighted by timestep.

Letters: b batch, c channels, h w latent pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.engine.phase import Losses
from lora_trainer.losses.huber import Compare
from lora_trainer.losses.noise import adaptive_strength
from lora_trainer.losses.noise_schedule import add_noise, alphas_cumprod, snr_table, velocity
from lora_trainer.losses.weighting import Weighting, weighted

TIMESTEPS, BANDS = 1000, 4
BY_TIMESTEP = "by timestep"


@dataclass
class Objective:
    """The loss of one micro-batch. `vae` encodes where latents are not cached."""

    vae: Any
    weighting: Weighting
    adaptive_scale: float
    zero_terminal_snr: bool
    device: torch.device
    compare: Compare

    def __post_init__(self) -> None:
        self.alphas = alphas_cumprod(zero_terminal_snr=self.zero_terminal_snr).to(self.device)
        self.snr = snr_table(alphas_cumprod()).to(self.device)  # of the plain schedule, as in sd-scripts

    def __call__(self, module: nn.Module, batch: dict[str, Any]) -> Losses:
        plain = self.plain(module, batch)
        losses = plain * batch["loss_weight"] if "loss_weight" in batch else plain
        return Losses(
            weighted(losses, batch["timestep"], self.snr, self.weighting), parts=by_timestep(plain, batch["timestep"])
        )

    def plain(self, module: nn.Module, batch: dict[str, Any]) -> Tensor:
        """(b,) the losses before the weights of their timesteps."""
        latents = self.latents(batch)  # (b, c, h, w), std about 1
        noise = batch["noise"]
        if "offset_direction" in batch:
            strength = batch["offset_strength"].view(-1, 1, 1, 1)
            noise = noise + adaptive_strength(strength, self.adaptive_scale, latents) * batch["offset_direction"]
        timesteps = batch["timestep"]
        input_noise = noise + batch["input_extra"] if "input_extra" in batch else noise
        prediction = module(add_noise(latents, input_noise, timesteps, self.alphas), batch)
        v_prediction = self.weighting.v_prediction
        target = velocity(latents, noise, timesteps, self.alphas) if v_prediction else noise
        losses = self.compare(prediction, target, timesteps)
        if "mask" in batch:  # the mean is over everything, as in sd-scripts, so that a small part counts little
            losses = losses * batch["mask"]
        return losses.flatten(1).mean(1)

    @torch.no_grad()
    def latents(self, batch: dict[str, Any]) -> Tensor:
        if "latents" in batch:
            found: Tensor = batch["latents"]
            return found
        mean, std = encode(self.vae, batch["pixels"])
        made: Tensor = (mean + std * batch["vae_noise"]) * float(self.vae.config.scaling_factor)
        return made


def by_timestep(losses: Tensor, timesteps: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """The losses before the weights of their timesteps, (b,), in four bands from little noise to much."""
    band = timesteps * BANDS // TIMESTEPS
    width = TIMESTEPS // BANDS
    return {
        f"{BY_TIMESTEP}/{number * width}-{(number + 1) * width - 1}": (losses, (band == number).float())
        for number in range(BANDS)
    }


@torch.no_grad()
def encode(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the VAE's posterior, (b, c, h, w) float32, from (b, 3, 8h, 8w) in -1..1."""
    with torch.autocast(vae.device.type, enabled=False):  # the VAE runs in its own number format
        posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        return posterior.mean.float(), posterior.std.float()
