"""The parts of Stable Diffusion by their configurations, with the random weights that their libraries give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

TextEncoder = CLIPTextModel | CLIPTextModelWithProjection


def build_unet(config: Mapping[str, Any]) -> UNet2DConditionModel:
    unet: UNet2DConditionModel = UNet2DConditionModel.from_config(dict(config))  # type: ignore[no-untyped-call]
    return unet


def build_vae(config: Mapping[str, Any]) -> AutoencoderKL:
    vae: AutoencoderKL = AutoencoderKL.from_config(dict(config))  # type: ignore[no-untyped-call]
    return vae


def build_text_encoder(config: Mapping[str, Any], *, projection: bool) -> TextEncoder:
    return text_encoder_class(projection)(CLIPTextConfig(**config))


def text_encoder_class(projection: bool) -> type[TextEncoder]:
    return CLIPTextModelWithProjection if projection else CLIPTextModel
