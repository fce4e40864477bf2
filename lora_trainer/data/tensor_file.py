"""A few tensors as one file that proves itself: complete, unchanged, and made of finite numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from lora_trainer.atomic import write_bytes


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors of any shape under their names, atomically."""
    # copies, because safetensors refuses two names of the same memory
    whole = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    write_bytes(path, save(whole, metadata={"checksum": _checksum(whole)}))


def read_tensors(path: Path) -> dict[str, torch.Tensor] | None:
    """The tensors, or None when the file is missing, damaged or holds a number that is not finite."""
    try:
        data = path.read_bytes()
        header_bytes = int.from_bytes(data[:8], "little")
        checksum = json.loads(data[8 : 8 + header_bytes])["__metadata__"]["checksum"]
        tensors = load(data)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    whole = checksum == _checksum(tensors) and all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    return tensors if whole else None


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    """Of the numbers and of how they are to be read, since a flipped bit in the header can change the shape."""
    digest = blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
