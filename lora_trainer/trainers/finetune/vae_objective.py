"""What a VAE's training minimises: differences of pictures, and the divergence of the latents.

Letters: b batch, c latent channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.engine.phase import Batch, Losses
from lora_trainer.losses.colour import average_loss, color_loss
from lora_trainer.losses.edges import gradient_l1_loss
from lora_trainer.losses.latents import kl_loss, mean_loss
from lora_trainer.losses.pixel import l1_loss, mse_loss

POOLED_PX = 4
LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": l1_loss,
    "mse": mse_loss,
    "gradient": gradient_l1_loss,
    "pooled": partial(average_loss, scale=POOLED_PX),
    "chroma": partial(color_loss, scale=POOLED_PX),
}
KL = "kl"


class VaeModel(nn.Module):
    """What one optimizer trains, so that DDP sees it as one module."""

    def __init__(self, vae: Any, trains_encoder: bool) -> None:
        super().__init__()
        self.vae = vae
        self.trains_encoder = trains_encoder

    def forward(self, pixels: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The pictures again, (b, 3, h, w), and mean and logarithm of the variance of their latents, (b, c, h/8, w/8);
        without noise the mean is decoded."""
        with torch.set_grad_enabled(self.trains_encoder and torch.is_grad_enabled()):
            posterior = self.vae.encode(pixels).latent_dist
        latents = posterior.mean if noise is None else posterior.mean + posterior.std * noise
        return self.vae.decode(latents).sample, posterior.mean, posterior.logvar

    def trained_weights(self) -> dict[str, nn.Parameter]:
        """By name; they alone require gradients afterwards."""
        of_decoder = ("vae.decoder.", "vae.post_quant_conv.")
        found = {}
        for name, weight in self.named_parameters():
            trained = self.trains_encoder or name.startswith(of_decoder)
            weight.requires_grad_(trained)
            if trained:
                found[name] = weight
        return found


@dataclass(frozen=True)
class VaeObjective:
    """`weights` are those of `LOSSES` that count. Terms are logged with their weights, so that they add up."""

    weights: Mapping[str, float]
    samples: bool  # whether a draw is decoded

    def __call__(self, module: nn.Module, batch: Batch) -> Losses:
        """The batch's `kl_weight` is that of the step; without one the latents do not count."""
        noise = batch["latent_noise"] if self.samples else None
        output, mean, log_variance = module(batch["pixels"], noise)
        terms = self.differences(output, batch["pixels"])
        if batch.get("kl_weight"):
            apart = kl_loss(mean, log_variance) if self.samples else mean_loss(mean)
            terms[KL] = batch["kl_weight"] * apart
        counted = {name: value * batch["loss_weight"] for name, value in terms.items()}
        return Losses(torch.stack(list(counted.values())).sum(0), counted if len(counted) > 1 else {})

    def differences(self, output: Tensor, pixels: Tensor) -> dict[str, Tensor]:
        """(b,) each, of pictures from -1 to 1."""
        found, wanted = as_shares(output.float()), as_shares(pixels)
        return {name: weight * LOSSES[name](found, wanted) for name, weight in self.weights.items()}


def as_shares(pixels: Tensor) -> Tensor:
    """From -1..1 to 0..1."""
    return (pixels + 1) / 2
