"""The frozen networks and the UNet of a restoration, and the way of a picture through them in one step.

Letters: b batch, c latent channels, h w pixels, d width of an encoded prompt. Pictures go from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.losses.one_step import Shares, clean_latents, nearer_to_input, sampled_latents
from lora_trainer.models.restoration.sizes import cropped, padded
from lora_trainer.models.restoration.tiles import WHOLE, Tiling, in_tiles

LATENT_PX = 8  # pixels of a picture under a place of the latents, along a side


@dataclass(frozen=True)
class OneStep:
    """A picture becomes latents, the UNet says at `model_t` what is to be taken from them, the rest becomes a picture.

    `shares` are those of `coeff_t`. The LoRA is in the UNet.
    """

    unet: Any
    vae: Any
    prediction: str
    model_t: int
    shares: Shares

    @property
    def scale(self) -> float:
        return float(self.vae.config.scaling_factor)

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @torch.no_grad()
    def moments(self, images: Tensor) -> Tensor:
        """(b, 2 c, h/8, w/8) mean and logarithm of the variance of the latents, before scaling."""
        posterior = self.vae.encode(images.to(self.vae.dtype)).latent_dist
        return torch.cat([posterior.mean, posterior.logvar], 1).float()

    def latents(self, images: Tensor, noise: Tensor | None) -> Tensor:
        """(b, c, h/8, w/8) scaled; a draw with normal `noise` of their shape, the mean without."""
        return self.drawn(self.moments(images), noise)

    def drawn(self, moments: Tensor, noise: Tensor | None) -> Tensor:
        mean, log_variance = moments.chunk(2, 1)
        return sampled_latents(mean, log_variance, noise, self.scale)

    def clean(self, latents: Tensor, hidden: Tensor, unet: nn.Module | None = None) -> Tensor:
        """(b, c, h/8, w/8) what the restored picture is in latents. `hidden` is (b, n, d) of the prompts; `unet` is the
        same network within what exchanges its gradients."""
        timesteps = torch.full((len(latents),), self.model_t, device=latents.device)
        network = self.unet if unet is None else unet
        answer: Tensor = network(
            latents.to(self.unet.dtype), timesteps, encoder_hidden_states=hidden.to(self.unet.dtype), return_dict=False
        )[0]
        return clean_latents(latents, answer.float(), self.shares, self.prediction)

    def decoded(self, latents: Tensor) -> Tensor:
        """(b, 3, h, w) float32, not clamped."""
        image: Tensor = self.vae.decode((latents / self.scale).to(self.vae.dtype), return_dict=False)[0]
        return image.float()

    @torch.inference_mode()
    def restored(
        self,
        images: Tensor,
        hidden: Tensor,
        tiling: Tiling = WHOLE,
        *,
        noise: Callable[[Sequence[int]], Tensor] | None = None,
        fidelity: float = 0.0,
        at_once: int = 1,
    ) -> Tensor:
        """(b, 3, h, w) of any size, in tiles where it is larger than one; `at_once` of these go through together.

        `noise` makes normal numbers of a shape; without it nothing is left to chance. With a `fidelity` above 0 the
        result is mixed with the picture's own latents, of which 1 leaves nothing else.
        """
        whole = padded(images, LATENT_PX)
        moments = in_tiles(self.moments, whole, tiling, Fraction(1, LATENT_PX), at_once)
        places = [len(moments), self.latent_channels, *moments.shape[2:]]
        latents = self.drawn(moments, None if noise is None else noise(places))
        small = tiling.divided(LATENT_PX)

        def clean(part: Tensor) -> Tensor:
            return self.clean(part, hidden.repeat(len(part) // len(hidden), 1, 1))

        found = nearer_to_input(in_tiles(clean, latents, small, 1, at_once), latents, fidelity)
        made = in_tiles(self.decoded, found, small, LATENT_PX, at_once)
        return cropped(made, (int(images.shape[-2]), int(images.shape[-1])))
