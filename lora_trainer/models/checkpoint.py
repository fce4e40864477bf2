"""What is known of a base model on disk before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_trainer.models.base_configs import Kind

Prediction = Literal["epsilon", "v_prediction"]

KIND_WORDS: dict[Kind, str] = {
    "sd15": "Stable Diffusion 1.x",
    "sd21": "Stable Diffusion 2.x",
    "sdxl": "Stable Diffusion XL",
}
SUPPORTED = "give a base model of Stable Diffusion 1.x, 2.x or XL"
LATENT_CHANNELS = 4

_UNUSUAL_CHANNELS = {8: "an instruct-pix2pix model", 9: "an inpainting model"}


@dataclass(frozen=True)
class Checkpoint:
    """A base model on disk. `prediction` is None when the model does not tell, `kind` when it must be loaded first."""

    path: Path
    layout: Literal["single_file", "folder", "description"]  # the last one is of a model to begin with random weights
    kind: Kind | None
    prediction: Prediction | None
    zero_terminal_snr: bool
    evidence: str  # what the kind and the prediction were concluded from


def unusual_channels(channels: int) -> str:
    """What a UNet with another number of input channels than 4 belongs to, in words."""
    return f"{_UNUSUAL_CHANNELS.get(channels, 'another kind of model')} ({channels} input channels)"
