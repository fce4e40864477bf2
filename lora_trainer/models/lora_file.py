"""LoRA files: the tensors of each layer under kohya's names, and metadata.

A standard LoRA has three tensors a layer: `<name>.lora_down.weight` (rank, in[, height, width]),
`<name>.lora_up.weight` (out, rank[, 1, 1]) and `<name>.alpha` (a scalar); other kinds have LyCORIS' names. Nothing else
may be in the file: Forge and diffusers reject files with tensors that they do not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.models.adapters.lora import ALPHA, DOWN
from lora_trainer.models.kohya_metadata import with_hashes
from lora_trainer.models.safetensors_bytes import safetensors_bytes

# tensors whose first side is the rank
RANK_FIRST = (DOWN, "hada_w1_b", "lokr_w2_b", "lokr_w1_b", "a2.weight")

SAVE_DTYPES = {"float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class AdapterFile:
    """A file as it was read: the tensors of each layer by its kohya name and by what stands behind it."""

    layers: dict[str, dict[str, Tensor]]
    metadata: dict[str, str]

    def sizes(self) -> dict[str, tuple[int, float]]:
        """Rank and alpha of every layer that has a rank; without an alpha it is the rank, as elsewhere."""
        found = {}
        for name, tensors in self.layers.items():
            rank = next((tensors[key].shape[0] for key in RANK_FIRST if key in tensors), 0)
            if rank:
                found[name] = (rank, float(tensors[ALPHA]) if ALPHA in tensors else float(rank))
        return found


def adapter_file_tensors(layers: Mapping[str, Mapping[str, Tensor]], dtype: torch.dtype) -> dict[str, Tensor]:
    """The file's tensors: on the CPU, contiguous, and cast, alpha as well."""
    # channels_last models have non-contiguous 1 x 1 convolutions, which safetensors does not store
    return {
        f"{name}.{key}": tensor.detach().to("cpu", dtype).contiguous()
        for name, tensors in layers.items()
        for key, tensor in tensors.items()
    }


def adapter_file_bytes(
    layers: Mapping[str, Mapping[str, Tensor]], dtype: torch.dtype, metadata: Mapping[str, str]
) -> bytes:
    """A whole file: the same weights and metadata give the same bytes."""
    tensors = adapter_file_tensors(layers, dtype)
    return safetensors_bytes(tensors, with_hashes(tensors, metadata))


def read_adapter_file(path: Path) -> AdapterFile:
    """Read a file of any kind of layer in kohya's names. Raises Refusal for what is no such file."""
    tensors, metadata = _read_tensors(path)
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, point, key = name.partition(".")
        if not (point and key):
            raise Refusal(f"{path}: {name} is no tensor of a LoRA in kohya's format; give a LoRA in that format")
        layers.setdefault(layer, {})[key] = tensor
    return AdapterFile(layers, metadata)


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise Refusal(f"{path}: there is no such LoRA file; correct the path")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no dict
    except SafetensorError as error:
        raise Refusal(f"{path}: not a readable .safetensors file ({error}); give a LoRA in that format") from error
