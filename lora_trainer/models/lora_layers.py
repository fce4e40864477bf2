"""Standard LoRA inside a model: y = base(x) + up(down(x)) * alpha / rank, with only down and up trained.

The layers are peft's, so that diffusers and peft can work with the trained model; they are reached only through the
functions here. A path is a module's dotted name in the model before the layers were put in.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Conv2d, Linear
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPAttention

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal

LoraLayer = Linear | Conv2d  # peft's
ADAPTER = "default"  # peft's own name for the only one

# Inside these classes every Linear and every 1 x 1 convolution gets a LoRA; nothing outside them does.
TARGET_CLASSES = (Transformer2DModel, CLIPAttention, CLIPMLP)


@dataclass(frozen=True)
class LoraWeights:
    """One layer's LoRA. The last two dimensions (1, 1) are there only on a convolution."""

    down: Tensor  # (rank, in) or (rank, in, 1, 1)
    up: Tensor  # (out, rank) or (out, rank, 1, 1)
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


def lora_targets(model: nn.Module) -> tuple[str, ...]:
    """The paths of the layers that a standard LoRA covers, in the model's own order."""
    paths: dict[str, None] = {}  # a set that keeps its order
    for outer_path, outer in model.named_modules():
        if isinstance(outer, TARGET_CLASSES):
            paths.update((path, None) for path, layer in outer.named_modules(prefix=outer_path) if _is_plain(layer))
    return tuple(paths)


def _is_plain(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))


def add_lora(model: nn.Module, names: Mapping[str, str], *, rank: int, alpha: float, seed: int) -> None:
    """Freeze the model and give every path of `names` a float32 LoRA that changes nothing yet (up is zero).

    `names` maps a path to the word that keys its draw (the name in the exported file): down depends on the seed and
    that word, not on the order of the layers, the device or the number of processes. The rank is the same for every
    layer, also where the layer is smaller. On the meta device only the shapes are made.
    """
    model.requires_grad_(False)
    # A pattern, because peft would take a list for name endings; on meta, because peft would draw from torch's
    # global generator and in the base's dtype.
    targets = "|".join(re.escape(path) for path in names)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets)  # type: ignore[arg-type]  # float is fine too
    inject_adapter_in_model(config, model, ADAPTER, low_cpu_mem_usage=True)
    layers = lora_layers(model)
    if layers.keys() != names.keys():
        raise ValueError(f"no Linear or Conv2d at {sorted(names.keys() - layers.keys())}")
    for path, layer in layers.items():
        _set_weights(layer, _first_weights(layer, torch_generator(seed, "lora_init", names[path])))


def _first_weights(layer: LoraLayer, generator: torch.Generator) -> LoraWeights:
    shapes = _weights(layer)
    device = cast(Tensor, layer.get_base_layer().weight).device
    down = torch.empty(shapes.down.shape, device="meta" if device.type == "meta" else "cpu")
    nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
    return LoraWeights(down.to(device), torch.zeros(shapes.up.shape, device=device), shapes.alpha)


def _weights(layer: LoraLayer) -> LoraWeights:
    down, up = (cast(Tensor, adapters[ADAPTER].weight) for adapters in (layer.lora_A, layer.lora_B))
    return LoraWeights(down, up, float(layer.lora_alpha[ADAPTER]))


def _set_weights(layer: LoraLayer, weights: LoraWeights) -> None:
    layer.lora_A[ADAPTER].weight = nn.Parameter(weights.down)
    layer.lora_B[ADAPTER].weight = nn.Parameter(weights.up)
    _set_alpha(layer, weights)


def _set_alpha(layer: LoraLayer, weights: LoraWeights) -> None:
    layer.lora_alpha[ADAPTER] = weights.alpha
    layer.scaling[ADAPTER] = weights.alpha / weights.rank


def lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    """The peft layers by path, in the model's own order."""
    return {path: layer for path, layer in model.named_modules() if isinstance(layer, LoraLayer)}


def lora_weights(model: nn.Module) -> dict[str, LoraWeights]:
    """What an exporter needs. The tensors are the live parameters, not copies."""
    return {path: _weights(layer) for path, layer in lora_layers(model).items()}


def load_lora_weights(model: nn.Module, weights: Mapping[str, LoraWeights]) -> tuple[str, ...]:
    """Overwrite the LoRA of a model that `add_lora` prepared; returns the paths that `weights` says nothing about.

    The alpha comes with the weights, because they mean nothing without it. A Linear's weights fit a 1 x 1 convolution
    and the other way round. Raises Refusal where a layer is missing or has another size.
    """
    layers, current = lora_layers(model), lora_weights(model)
    if problems := [problem for path in weights if (problem := _misfit(path, weights[path], current.get(path)))]:
        more = f"; {len(problems) - 1} more layers do not fit either" if len(problems) > 1 else ""
        raise Refusal(problems[0] + more)
    with torch.no_grad():
        for path, new in weights.items():
            current[path].down.copy_(new.down.view_as(current[path].down))
            current[path].up.copy_(new.up.view_as(current[path].up))
            _set_alpha(layers[path], new)
    return tuple(path for path in current if path not in weights)


def _misfit(path: str, new: LoraWeights, current: LoraWeights | None) -> str | None:
    if current is None:
        return f"{path}: the LoRA file has weights for this layer, but here it has no LoRA"
    if new.rank != current.rank:
        return f"{path}: the LoRA file has rank {new.rank}, this training {current.rank}; set network_dim to {new.rank}"
    if _size(new) != _size(current):
        return (
            f"{path}: the LoRA file is for a layer from {_size(new)[0]} to {_size(new)[1]} features, this base model's "
            f"is from {_size(current)[0]} to {_size(current)[1]}; use a file of the same family of base models"
        )
    return None


def _size(weights: LoraWeights) -> tuple[int, int]:
    return weights.down[0].numel(), weights.up[:, 0].numel()


def freeze_unreachable(text_encoder: nn.Module, reachable: range) -> None:
    """Train only the encoder layers that have a part in the result (`text_encoding.reachable_layers`).

    The others keep their LoRA, which is exported as it is (up zero): other tools expect a file of the full set. DDP,
    on the other hand, would wait for gradients that never come.
    """
    for path, layer in lora_layers(text_encoder).items():
        inside = re.search(r"\bencoder\.layers\.(\d+)\.", path)
        if inside and int(inside[1]) not in reachable:
            layer.requires_grad_(False)


@contextlib.contextmanager
def lora_disabled(*models: nn.Module) -> Iterator[None]:
    """The base models as they were, for a preview to compare with. What was trainable or frozen stays so."""
    layers = [layer for model in models for layer in lora_layers(model).values()]
    trainable = [parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
            layer.requires_grad_(False)
        for parameter in trainable:
            parameter.requires_grad_(True)
