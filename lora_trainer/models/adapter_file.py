"""LoRA files of every kind, by layer: standard LoRA, LyCORIS' relatives, DoRA, full differences, norms and biases.

Read with the names of kohya or of diffusers, from .safetensors or PyTorch files; written as .safetensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lora_trainer.atomic import write_bytes
from lora_trainer.errors import Refusal
from lora_trainer.models.adapter_names import (
    ALPHA,
    DORA,
    DOWN,
    MID,
    WORDS,
    AdapterKind,
    Naming,
    base_kind,
    kind_of_layer,
    kohya_layers,
    layer_places,
    naming_of,
    peft_alphas,
    split_name,
)
from lora_trainer.models.base_configs import Kind
from lora_trainer.models.kohya_metadata import with_hashes
from lora_trainer.models.safetensors_bytes import safetensors_bytes
from lora_trainer.models.state_files import read_state_file

PRECISIONS: dict[str, torch.dtype] = {"float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_LISTED = 5


@dataclass(frozen=True)
class FileLayer:
    """One layer of a file: its tensors by kohya's endings, in the file's precision."""

    kind: AdapterKind
    tensors: Mapping[str, Tensor]

    @property
    def rank(self) -> int | None:
        """None for kinds that have none, and for a LoKr of two whole matrices."""
        for ending in (DOWN, "hada_w1_b", "lokr_w2_b", "lokr_w1_b", "b2.weight"):
            if ending in self.tensors:
                return self.tensors[ending].shape[0]
        return None

    @property
    def size(self) -> tuple[int, float] | None:
        """Rank and alpha, which is the rank where the file says nothing."""
        rank = self.rank
        return (rank, self.alpha if self.alpha is not None else float(rank)) if rank else None

    @property
    def alpha(self) -> float | None:
        return float(self.tensors[ALPHA]) if ALPHA in self.tensors else None

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied with: alpha / rank, and 1 without an alpha or a rank."""
        return self.alpha / self.rank if self.rank and self.alpha is not None else 1.0

    @property
    def dora(self) -> bool:
        return DORA in self.tensors

    @property
    def kernel(self) -> tuple[int, ...]:
        """The size of a LoRA's convolution kernel; () for a linear layer."""
        return tuple(self.tensors[MID if MID in self.tensors else DOWN].shape[2:])

    @property
    def words(self) -> str:
        """The kind as people call it."""
        if self.kind == "lora":
            return "DoRA" if self.dora else "LoRA with a Tucker core" if MID in self.tensors else "LoRA"
        return f"{WORDS[self.kind]} with weight decomposition" if self.dora else WORDS[self.kind]


@dataclass(frozen=True)
class AdapterFile:
    """A file as it was read."""

    path: Path
    layers: dict[str, FileLayer]  # by the file's own names
    metadata: dict[str, str]

    @property
    def naming(self) -> Naming:
        return naming_of(self.layers)

    @property
    def base_kind(self) -> Kind | None:
        """For which family of base models it is, where names, sizes or metadata tell."""
        tensors = adapter_tensors(self.layers, None)
        return base_kind({name: tuple(tensor.shape) for name, tensor in tensors.items()}, self.metadata)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of most of its tensors."""
        counts = Counter(tensor.dtype for layer in self.layers.values() for tensor in layer.tensors.values())
        return counts.most_common(1)[0][0]


def read_adapter_file(path: Path) -> AdapterFile:
    """Read a file. Raises Refusal for what is none, and for layers that are unknown or incomplete, all at once."""
    if not path.is_file():
        raise Refusal(f"{path}: there is no such LoRA file; correct the path")
    file = read_state_file(path)
    by_layer: dict[str, dict[str, Tensor]] = {}
    for name, tensor in file.tensors.items():
        layer, ending = split_name(name)
        by_layer.setdefault(layer, {})[ending] = tensor
    if not by_layer:
        raise Refusal(f"{path}: there are no tensors in this file; give a LoRA")
    layers = {name: _layer(name, tensors) for name, tensors in by_layer.items()}
    if unknown := [name for name, layer in layers.items() if layer is None]:
        raise Refusal(_unknown(path, unknown, by_layer, len(layers)))
    found = {name: layer for name, layer in layers.items() if layer is not None}
    return _with_peft_alphas(AdapterFile(path, found, file.metadata))


def _layer(name: str, tensors: dict[str, Tensor]) -> FileLayer | None:
    kind = kind_of_layer(tensors, {ending: tuple(tensor.shape) for ending, tensor in tensors.items()})
    return None if kind is None else FileLayer(kind, tensors)


def _unknown(path: Path, unknown: list[str], tensors: Mapping[str, Mapping[str, Tensor]], layers: int) -> str:
    listed = "; ".join(f"{name} with {', '.join(sorted(tensors[name])) or 'no ending'}" for name in unknown[:_LISTED])
    if len(unknown) == layers:
        return f"{path}: this is no LoRA file, its tensors are named like {listed.partition(';')[0]}; give a LoRA"
    return (
        f"{path}: {len(unknown)} of {layers} layers are of an unknown kind or incomplete ({listed}); "
        "give a complete file of LoRA, LoCon, LoHa, LoKr, (IA)3, GLoRA, OFT, BOFT or full differences"
    )


def _with_peft_alphas(file: AdapterFile) -> AdapterFile:
    """diffusers' files have alpha in their metadata."""
    if file.naming == "kohya":
        return file
    ranks = {name: layer.rank for name, layer in file.layers.items() if layer.rank and ALPHA not in layer.tensors}
    alphas = peft_alphas(file.metadata, {name: rank for name, rank in ranks.items() if rank})
    layers = dict(file.layers)
    for name, alpha in alphas.items():
        dtype = layers[name].tensors[DOWN].dtype
        layers[name] = replace(layers[name], tensors={**layers[name].tensors, ALPHA: torch.tensor(alpha, dtype=dtype)})
    return replace(file, layers=layers)


def in_kohya_names(file: AdapterFile, kind: Kind | None) -> AdapterFile:
    """The same layers under the names that all programs read; those that no table knows keep theirs."""
    if kind is None:
        return file
    places, names = layer_places(kind), kohya_layers(kind)
    layers = {names[places[name]] if name in places else name: layer for name, layer in file.layers.items()}
    if len(layers) < len(file.layers):
        raise Refusal(f"{file.path}: a layer is in it twice, under two names; give a file with one of them")
    return replace(file, layers=layers)


def adapter_tensors(layers: Mapping[str, FileLayer], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The tensors of a file's layers; see `flat_tensors`."""
    return flat_tensors({name: layer.tensors for name, layer in layers.items()}, dtype)


def adapter_file_bytes(
    layers: Mapping[str, Mapping[str, Tensor]], dtype: torch.dtype, metadata: Mapping[str, str]
) -> bytes:
    """A whole file: the same weights and metadata give the same bytes.

    Nothing but layers may be in it: Forge and diffusers reject files with tensors that they do not know.
    """
    tensors = flat_tensors(layers, dtype)
    return safetensors_bytes(tensors, with_hashes(tensors, metadata))


def flat_tensors(layers: Mapping[str, Mapping[str, Tensor]], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The tensors of a file in kohya's names, contiguous on the CPU; cast, alpha as well, where a precision is given.

    Whole numbers ((IA)3's `on_input`) stay as they are.
    """
    tensors = {}
    for name, layer in layers.items():
        for ending, tensor in layer.items():
            wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            moved = tensor.detach().to("cpu", wanted)
            tensors[f"{name}.{ending}"] = moved.clone(memory_format=torch.contiguous_format)  # none shares its memory
    return tensors


def write_adapter_file(
    path: Path, layers: Mapping[str, FileLayer], dtype: torch.dtype | None, metadata: Mapping[str, str]
) -> None:
    """Write a file in kohya's names, with its hashes."""
    write_tensors(path, adapter_tensors(layers, dtype), metadata)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, safetensors_bytes(tensors, with_hashes(tensors, metadata)))
