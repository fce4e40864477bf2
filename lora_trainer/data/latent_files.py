"""The latents of one picture as one file that proves itself: complete, unchanged, and of this very picture."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

import torch

from lora_trainer.data.survey import Sample
from lora_trainer.data.tensor_file import read_tensors

NAME = "latents"
FORMAT = 1  # raise it when the same key would mean other numbers


def latent_path(folder: Path, sample: Sample, *settings: object) -> Path:
    """Where the latents of this picture, placed like this and encoded with these settings, belong."""
    key = [FORMAT, sample.digest, *vars(sample.placement).values(), *map(str, settings)]
    key += ["colours below transparency"] if sample.alpha_mask else []
    return folder / f"{blake2b(json.dumps(key).encode(), digest_size=20).hexdigest()}.safetensors"


def as_tensors(latents: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is written of them, which may have any shape."""
    return {NAME: latents}


def read_latents(path: Path) -> torch.Tensor | None:
    """The tensor, or None when the file is missing, damaged or holds a number that is not finite."""
    return (read_tensors(path) or {}).get(NAME)
