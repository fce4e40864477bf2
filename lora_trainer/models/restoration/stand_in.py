"""A tiny base model that has learnt nothing, for trying a restoration out where there is no Stable Diffusion.

Its VAE loses nothing: the 8 x 8 pixels under a place of the latents become its channels. Its UNet is Stable Diffusion's
in small, with random weights, and begins by giving back what it reads. So a restoration can be learnt on a CPU in
minutes, by the same code as in large. Letters: b batch, c channels, h w pixels.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import FrozenDict
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.tiny_models import random_model, tiny_base

FOLD_PX = 8
CHANNELS = 3 * FOLD_PX**2
SILENT = -30.0  # the logarithm of the variance of latents that are as good as without noise
WIDTHS = (96, 128)
NOISE_SHARE, SIGNAL_SHARE = 0.496294, 0.868157  # of a picture at timestep 200, the usual coeff_t


class FoldedPixels(nn.Module):
    """Called as diffusers' autoencoders: pictures (b, 3, h, w) to latents (b, 192, h/8, w/8), and back exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.config = FrozenDict(  # type: ignore[no-untyped-call]
            scaling_factor=1.0, latent_channels=CHANNELS, force_upcast=False, block_out_channels=(CHANNELS,) * 4
        )
        self.register_buffer("format", torch.zeros(()), persistent=False)  # to be asked for its place and number format

    @property
    def dtype(self) -> torch.dtype:
        return self.get_buffer("format").dtype

    @property
    def device(self) -> torch.device:
        return self.get_buffer("format").device

    def enable_gradient_checkpointing(self) -> None:
        """There is nothing to compute once more."""

    def encode(self, pixels: Tensor) -> AutoencoderKLOutput:
        mean = F.pixel_unshuffle(pixels, FOLD_PX)
        moments = torch.cat([mean, torch.full_like(mean, SILENT)], 1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments))

    def decode(self, latents: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        pixels = F.pixel_shuffle(latents, FOLD_PX)
        return DecoderOutput(sample=pixels) if return_dict else (pixels,)


class BeginningUnet(UNet2DConditionModel):
    """Stable Diffusion's UNet, to whose answer a share of what it reads is added, so that nothing is changed by it at
    first."""

    def forward(self, sample: Tensor, *arguments: Any, return_dict: bool = True, **options: Any) -> Any:
        answer: Tensor = super().forward(sample, *arguments, return_dict=False, **options)[0]  # type: ignore[misc]
        answer = answer + sample * ((1 - SIGNAL_SHARE) / NOISE_SHARE)
        return UNet2DConditionOutput(sample=answer) if return_dict else (answer,)


def stand_in_base(dtype: torch.dtype = torch.float32) -> BaseModel:
    """On the CPU, frozen, always with the same weights; UNet and text encoder in this format."""
    base = tiny_base("sd21")
    settings = dict(base.configs["unet"]) | {
        "in_channels": CHANNELS,
        "out_channels": CHANNELS,
        "block_out_channels": list(WIDTHS),
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "attention_head_dim": [2, 4],
        "layers_per_block": 1,
    }
    unet = random_model(partial(_built, settings), "stand-in unet", 0, dtype)
    with torch.no_grad():
        for weight in unet.conv_out.parameters():
            weight.zero_()
    encoders = tuple(encoder.to(dtype) for encoder in base.text_encoders)
    return replace(base, unet=unet, vae=FoldedPixels(), text_encoders=encoders)


def _built(settings: dict[str, Any]) -> Any:
    return BeginningUnet.from_config(settings)  # type: ignore[no-untyped-call]
