"""Standard LoRA layers in the words of their tests: weights by path, one rank and alpha for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_trainer.models import adapter_file
from lora_trainer.models.adapters.layer import Dropouts, LayerPlan
from lora_trainer.models.adapters.lora import ALPHA, DOWN, UP, LoraWeights, weights_in
from lora_trainer.models.adapters.network import adapter_layers, add_adapter, load_adapter


def add_lora(model: nn.Module, names: Mapping[str, str], *, rank: int, alpha: float, seed: int) -> None:
    plans = {path: LayerPlan(name, "lora", rank, alpha) for path, name in names.items()}
    assert add_adapter(model, plans, Dropouts(), seed) == {}


def lora_weights(model: nn.Module) -> dict[str, LoraWeights]:
    return {path: layer.weights() for path, layer in adapter_layers(model).items()}


def load_lora_weights(model: nn.Module, weights: Mapping[str, LoraWeights]) -> tuple[str, ...]:
    return load_adapter(model, as_tensors(weights))


def as_tensors(weights: Mapping[str, LoraWeights]) -> dict[str, dict[str, Tensor]]:
    return {key: {DOWN: w.down, UP: w.up, ALPHA: torch.tensor(w.alpha)} for key, w in weights.items()}


def lora_tensors(weights: Mapping[str, LoraWeights], dtype: torch.dtype) -> dict[str, Tensor]:
    return adapter_file.flat_tensors(as_tensors(weights), dtype)


def lora_file_bytes(weights: Mapping[str, LoraWeights], dtype: torch.dtype, metadata: Mapping[str, str]) -> bytes:
    return adapter_file.adapter_file_bytes(as_tensors(weights), dtype, metadata)


@dataclass(frozen=True)
class LoraFile:
    weights: dict[str, LoraWeights]
    metadata: dict[str, str]


def read_lora_file(path: Path) -> LoraFile:
    file = read_layers(path)
    return LoraFile({name: weights_in(tensors) for name, tensors in file.layers.items()}, file.metadata)


@dataclass(frozen=True)
class Layers:
    layers: dict[str, Mapping[str, Tensor]]
    metadata: dict[str, str]


def read_layers(path: Path) -> Layers:
    """The tensors of each layer of a file, of whatever kind."""
    file = adapter_file.read_adapter_file(path)
    return Layers({name: layer.tensors for name, layer in file.layers.items()}, file.metadata)
