"""The latents of one picture as one file that proves itself: complete, unchanged, and of this very picture."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from lora_trainer.atomic import write_bytes
from lora_trainer.data.survey import Sample

FORMAT = 1  # raise it when the same key would mean other numbers


def latent_path(folder: Path, sample: Sample, *settings: object) -> Path:
    """Where the latents of this picture, placed like this and encoded with these settings, belong."""
    key = [FORMAT, sample.digest, *vars(sample.placement).values(), *map(str, settings)]
    return folder / f"{blake2b(json.dumps(key).encode(), digest_size=20).hexdigest()}.safetensors"


def write_latents(path: Path, latents: torch.Tensor) -> None:
    """Write a tensor of any shape, atomically."""
    latents = latents.contiguous()
    write_bytes(path, save({"latents": latents}, metadata={"checksum": _checksum(latents)}))


def read_latents(path: Path) -> torch.Tensor | None:
    """The tensor, or None when the file is missing, damaged or holds a number that is not finite."""
    try:
        data = path.read_bytes()
        header_bytes = int.from_bytes(data[:8], "little")
        checksum = json.loads(data[8 : 8 + header_bytes])["__metadata__"]["checksum"]
        latents = load(data)["latents"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    whole = checksum == _checksum(latents) and bool(latents.isfinite().all())
    return latents if whole else None


def _checksum(latents: torch.Tensor) -> str:
    """Of the numbers and of how they are to be read, since a flipped bit in the header can change the shape."""
    meaning = f"{latents.dtype} {tuple(latents.shape)} ".encode()
    return blake2b(meaning + latents.reshape(-1).view(torch.uint8).numpy().tobytes(), digest_size=16).hexdigest()
