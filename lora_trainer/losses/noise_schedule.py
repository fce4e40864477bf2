"""How much noise each timestep has: the discrete schedule that Stable Diffusion 1, 2 and XL were trained with.

Letters: t timesteps (1000), b batch, c channels, h w latent pixels. ``alphas_cumprod`` is the share of the clean
latents' variance that is left at a timestep; the rest is noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

TIMESTEPS = 1000
BETA_START = 0.00085
BETA_END = 0.012


def alphas_cumprod(*, zero_terminal_snr: bool = False) -> Tensor:
    """(t,) float32 of the "scaled_linear" schedule, bit for bit what diffusers' DDPMScheduler computes.

    ``zero_terminal_snr`` shifts and scales the square roots so that the last timestep is pure noise and the first keeps
    its value (Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1).
    """
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TIMESTEPS, dtype=torch.float32) ** 2
    alphas = torch.cumprod(1.0 - betas, dim=0)
    if not zero_terminal_snr:
        return alphas
    roots = alphas.double().sqrt()
    first, last = roots[0], roots[-1]
    return ((roots - last) * first / (first - last)).square().float()


def snr_table(alphas: Tensor) -> Tensor:
    """(t,) the ratio of the signal's variance to the noise's; 0 at a terminal timestep of pure noise."""
    return alphas / (1.0 - alphas)


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas: Tensor) -> Tensor:
    """(b, c, h, w) what the model sees at these timesteps, (b,)."""
    signal, spread = _factors(latents, timesteps, alphas)
    return signal * latents + spread * noise


def velocity(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas: Tensor) -> Tensor:
    """(b, c, h, w) the target of v-prediction (Salimans and Ho 2022)."""
    signal, spread = _factors(latents, timesteps, alphas)
    return signal * noise - spread * latents


def _factors(like: Tensor, timesteps: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of clean latents and of noise, (b, 1, 1, 1)."""
    kept = alphas.to(like.device)[timesteps].view(-1, *[1] * (like.dim() - 1))
    return kept.sqrt().to(like.dtype), (1.0 - kept).sqrt().to(like.dtype)
