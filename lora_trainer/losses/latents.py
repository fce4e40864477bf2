"""What keeps a VAE's latents near a normal distribution.

Letters: b batch, c channels, h w latent pixels.
"""

from __future__ import annotations

from torch import Tensor

from lora_trainer.losses.full_precision import full_precision
from lora_trainer.losses.pixel import per_sample


@full_precision
def kl_loss(mean: Tensor, log_variance: Tensor) -> Tensor:
    """(b,) the divergence of N(mean, variance) from N(0, 1), in nats per latent number; both are (b, c, h, w)."""
    return per_sample(mean.square() + log_variance.exp() - 1 - log_variance) / 2


@full_precision
def mean_loss(mean: Tensor) -> Tensor:
    """(b,) the part of `kl_loss` that is about the means, for latents without noise."""
    return per_sample(mean.square()) / 2


def warmed_up(weight: float, step: int, warmup_steps: int) -> float:
    """The weight of a term that comes in along a line; its full weight after so many steps, counted from 0."""
    return weight * min(1.0, (step + 1) / max(1, warmup_steps))
