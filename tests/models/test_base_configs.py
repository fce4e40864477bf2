"""The packaged configurations build the published models, to the parameter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lora_trainer.errors import Refusal
from lora_trainer.models.architectures import build_text_encoder, build_unet, build_vae
from lora_trainer.models.base_configs import (
    CONFIGS_KEY,
    KINDS,
    Kind,
    configs_from_metadata,
    configs_to_metadata,
    published_configs,
)

PATH = Path("tiny.safetensors")
VAE, CLIP_L, BIG_G, OPEN_CLIP_H = 83_653_863, 123_060_480, 694_659_840, 340_387_840
PARAMETERS: dict[Kind, tuple[int, ...]] = {  # UNet, VAE, text encoders
    "sd15": (859_520_964, VAE, CLIP_L),
    "sd21": (865_910_724, VAE, OPEN_CLIP_H),
    "sdxl": (2_567_463_684, VAE, CLIP_L, BIG_G),
}


@pytest.mark.parametrize("kind", KINDS)
def test_parameter_counts(kind: Kind) -> None:
    configs = published_configs(kind)
    with torch.device("meta"):
        models = [build_unet(configs["unet"]), build_vae(configs["vae"])]
        models.append(build_text_encoder(configs["text_encoder"], projection=False))
        if "text_encoder_2" in configs:
            models.append(build_text_encoder(configs["text_encoder_2"], projection=True))
    assert tuple(sum(tensor.numel() for tensor in model.parameters()) for model in models) == PARAMETERS[kind]


def test_scaling_factors_and_schedules() -> None:
    assert {kind: published_configs(kind)["vae"]["scaling_factor"] for kind in KINDS} == {
        "sd15": 0.18215,
        "sd21": 0.18215,
        "sdxl": 0.13025,
    }
    for kind in KINDS:
        schedule = published_configs(kind)["scheduler"]
        assert (schedule["beta_start"], schedule["beta_end"]) == (0.00085, 0.012)
        assert (schedule["beta_schedule"], schedule["num_train_timesteps"]) == ("scaled_linear", 1000)


def test_configurations_travel_in_metadata() -> None:
    configs = published_configs("sd21")
    assert configs_from_metadata(PATH, {CONFIGS_KEY: configs_to_metadata("sd21", configs)}) == ("sd21", configs)
    assert configs_from_metadata(PATH, {"format": "pt"}) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[]", "the kind is None"),
        (json.dumps({"kind": "sd9"}), "the kind is 'sd9'"),
        (json.dumps({"kind": "sd15", "unet": {}, "vae": {}}), "without scheduler, text_encoder"),
    ],
)
def test_damaged_configurations(text: str, message: str) -> None:
    with pytest.raises(Refusal) as refusal:
        configs_from_metadata(PATH, {CONFIGS_KEY: text})
    assert str(refusal.value) == (
        f"tiny.safetensors: {CONFIGS_KEY} in its metadata is damaged ({message}); make or copy the file again"
    )
