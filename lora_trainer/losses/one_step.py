"""From a degraded picture's latents to the restored one's in one step: what the UNet's answer means at a timestep.

Letters: b batch, c channels, h w latent pixels. Latents are scaled by the VAE's `scaling_factor`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lora_trainer.losses.noise_schedule import alphas_cumprod

LOG_VARIANCE_RANGE = (-30.0, 20.0)


class Shares(NamedTuple):
    """Of the clean latents and of the noise in noisy ones; their squares add up to 1."""

    signal: float
    noise: float


def shares_at(timestep: int) -> Shares:
    """sqrt(alpha) and sqrt(1 - alpha) of Stable Diffusion's schedule, for the `coeff_t` of a preset."""
    kept = float(alphas_cumprod()[timestep])
    return Shares(math.sqrt(kept), math.sqrt(1.0 - kept))


def sampled_latents(mean: Tensor, log_variance: Tensor, noise: Tensor | None, scaling_factor: float) -> Tensor:
    """(b, c, h, w) a draw from what the VAE's encoder gives, its mean where there is no noise.

    `noise` is standard normal, of the mean's shape.
    """
    if noise is None:
        return mean * scaling_factor
    spread = (log_variance.clamp(*LOG_VARIANCE_RANGE) * 0.5).exp()
    return (mean + spread * noise) * scaling_factor


def clean_latents(latents: Tensor, answer: Tensor, shares: Shares, prediction: str = "epsilon") -> Tensor:
    """(b, c, h, w) what is left of the latents without what the UNet takes for noise in them, not clipped.

    `answer` is the UNet's, told any timestep; `prediction` says whether it is noise or velocity.
    """
    return PREDICTIONS[prediction](latents, answer, shares)


def _from_noise(latents: Tensor, noise: Tensor, shares: Shares) -> Tensor:
    return (latents - shares.noise * noise) / shares.signal


def _from_velocity(latents: Tensor, velocity: Tensor, shares: Shares) -> Tensor:
    """Salimans and Ho 2022."""
    return shares.signal * latents - shares.noise * velocity


PREDICTIONS: Mapping[str, Callable[[Tensor, Tensor, Shares], Tensor]] = {
    "epsilon": _from_noise,
    "v_prediction": _from_velocity,
}


def nearer_to_input(restored: Tensor, latents: Tensor, fidelity: float) -> Tensor:
    """(b, c, h, w) the restored latents at 0, those of the degraded picture at 1, and between them a mixture."""
    return torch.lerp(restored, latents, fidelity)
