"""The trained layers of a model as a whole: put in, found, switched off, kept short, taken from a file."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from lora_trainer.errors import Refusal
from lora_trainer.models.adapters.layer import AdapterLayer, Dropouts, LayerPlan
from lora_trainer.models.adapters.lora import LoraLayer, add_lora_layers

PEFT = "lora"  # the algo that peft has; the others are lycoris'


def add_adapter(model: nn.Module, plans: Mapping[str, LayerPlan], dropouts: Dropouts, seed: int) -> dict[str, str]:
    """Freeze the model and put a float32 layer that changes nothing yet beside every path of `plans`.

    Gives the reason by path where a layer's size does not allow it. The beginning depends on the seed and the layer's
    name alone, not on the order of the layers, the device or the number of processes.
    """
    model.requires_grad_(False)
    unknown = plans.keys() - {path for path, _ in model.named_modules()}
    if unknown:
        raise ValueError(f"no layer at {sorted(unknown)}")
    ours = {path: plan for path, plan in plans.items() if plan.algo == PEFT}
    theirs = {path: plan for path, plan in plans.items() if plan.algo != PEFT}
    if ours:
        add_lora_layers(model, ours, dropouts, seed)
    if not theirs:
        return {}
    from lora_trainer.models.adapters.lycoris import add_lycoris_layers

    return add_lycoris_layers(model, theirs, dropouts, seed)


def adapter_layers(model: nn.Module) -> dict[str, AdapterLayer]:
    """The trained layers by the path of the layer that they change, in the model's own order."""
    found: dict[str, AdapterLayer] = {}
    for path, module in model.named_modules():
        if isinstance(module, LoraLayer):
            found[path] = cast(AdapterLayer, module)
        elif hasattr(module, "org_module"):  # lycoris', which is imported only where it is used
            found[path.rpartition(".")[0]] = cast(AdapterLayer, module)
    return found


def fuse_layers(model: nn.Module) -> int:
    """Compute each layer and its standard LoRA as one function where that can be; gives how many."""
    return sum(layer.fuse() for layer in model.modules() if isinstance(layer, LoraLayer))


def set_adapter_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    """The number format of the trained weights, float32 without it."""
    for layer in adapter_layers(model).values():
        for weight in cast(nn.Module, layer).parameters():
            if weight.requires_grad:
                weight.data = weight.data.to(dtype)


def adapter_tensors(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """What an exporter needs, by path. May be the live parameters, not copies."""
    return {path: layer.file_tensors() for path, layer in adapter_layers(model).items()}


def load_adapter(model: nn.Module, tensors: Mapping[str, Mapping[str, Tensor]]) -> tuple[str, ...]:
    """Overwrite the layers that `add_adapter` put in; returns the paths that `tensors` says nothing about.

    Raises Refusal where a layer is missing or has another kind or size.
    """
    layers = adapter_layers(model)
    problems = []
    for path, of_layer in tensors.items():
        if path not in layers:
            problems.append(f"{path}: the LoRA file has weights for this layer, but here it has no LoRA")
        elif problem := layers[path].misfit(of_layer):
            problems.append(f"{path}: {problem}")
    if problems:
        more = f"; {len(problems) - 1} more layers do not fit either" if len(problems) > 1 else ""
        raise Refusal(problems[0] + more)
    for path, of_layer in tensors.items():
        layers[path].load_file_tensors(of_layer)
    return tuple(path for path in layers if path not in tensors)


def limit_norms(model: nn.Module, largest: float) -> None:
    """kohya's scale_weight_norms: no layer's change may be longer than this."""
    for layer in adapter_layers(model).values():
        layer.limit_norm(largest)


def freeze_unreachable(text_encoder: nn.Module, reachable: range) -> None:
    """Train only the encoder layers that have a part in the result (`text_encoding.reachable_layers`).

    The others keep their layers, which are exported as they are: other tools expect a file of the full set. DDP, on
    the other hand, would wait for gradients that never come.
    """
    for path, layer in adapter_layers(text_encoder).items():
        inside = re.search(r"\bencoder\.layers\.(\d+)\.", path)
        if inside and int(inside[1]) not in reachable:
            cast(nn.Module, layer).requires_grad_(False)


@contextlib.contextmanager
def adapter_disabled(*models: nn.Module) -> Iterator[None]:
    """The base models as they were, for a preview to compare with. What was trainable or frozen stays so."""
    layers = [layer for model in models for layer in adapter_layers(model).values()]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.enabled = True
