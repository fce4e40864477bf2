"""LoRA files: three tensors per layer under kohya's names, and metadata.

`<name>.lora_down.weight` (rank, in[, 1, 1]), `<name>.lora_up.weight` (out, rank[, 1, 1]), `<name>.alpha` (a scalar).
Nothing else may be in the file: Forge and diffusers reject files with tensors that they do not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.models.kohya_metadata import with_hashes
from lora_trainer.models.lora_layers import LoraWeights
from lora_trainer.models.safetensors_bytes import safetensors_bytes

DOWN, UP, ALPHA = "lora_down.weight", "lora_up.weight", "alpha"

SAVE_DTYPES = {"float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class LoraFile:
    """A file as it was read: float32 weights by kohya name."""

    weights: dict[str, LoraWeights]
    metadata: dict[str, str]


def lora_tensors(weights: Mapping[str, LoraWeights], dtype: torch.dtype) -> dict[str, Tensor]:
    """The file's tensors from weights by kohya name: on the CPU, contiguous, and cast, alpha as well."""
    tensors = {}
    for name, layer in weights.items():
        alpha = torch.tensor(layer.alpha)
        for key, tensor in ((DOWN, layer.down), (UP, layer.up), (ALPHA, alpha)):
            # channels_last models have non-contiguous 1 x 1 convolutions, which safetensors does not store
            tensors[f"{name}.{key}"] = tensor.detach().to("cpu", dtype).contiguous()
    return tensors


def lora_file_bytes(weights: Mapping[str, LoraWeights], dtype: torch.dtype, metadata: Mapping[str, str]) -> bytes:
    """A whole file: the same weights and metadata give the same bytes."""
    tensors = lora_tensors(weights, dtype)
    return safetensors_bytes(tensors, with_hashes(tensors, metadata))


def read_lora_file(path: Path) -> LoraFile:
    """Read a standard LoRA. Raises Refusal for what is no such file; without an alpha the scale is 1, as elsewhere."""
    tensors, metadata = _read_tensors(path)
    by_layer: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, _, key = name.partition(".")
        by_layer.setdefault(layer, {})[key] = tensor
    weights = {layer: _layer_weights(path, layer, found) for layer, found in by_layer.items()}
    return LoraFile(weights, metadata)


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise Refusal(f"{path}: there is no such LoRA file; correct the path")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no dict
    except SafetensorError as error:
        raise Refusal(f"{path}: not a readable .safetensors file ({error}); give a LoRA in that format") from error


def _layer_weights(path: Path, layer: str, found: Mapping[str, Tensor]) -> LoraWeights:
    if unknown := sorted(found.keys() - {DOWN, UP, ALPHA}):
        raise Refusal(
            f"{path}: {layer} has {unknown[0]}, so this is not a standard LoRA in kohya's format; "
            "give one with lora_down, lora_up and alpha"
        )
    if missing := sorted({DOWN, UP} - found.keys()):
        raise Refusal(f"{path}: {layer} has no {missing[0]}; the file is incomplete, so give another copy of it")
    down, up = found[DOWN].float(), found[UP].float()
    return LoraWeights(down, up, float(found[ALPHA]) if ALPHA in found else float(down.shape[0]))
