"""A LoRA file of any kind in live models, as strong as one likes, and out of them again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.errors import Refusal
from lora_trainer.models.adapter_delta import bias_change, changed_bias, changed_weight
from lora_trainer.models.adapter_file import AdapterFile, FileLayer
from lora_trainer.models.adapter_names import layer_places
from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.checkpoint import KIND_WORDS

_LISTED = 3
_TEXT_PARTS = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class LiveAdapter:
    """The layers of a file beside the modules that they change."""

    layers: tuple[tuple[str, FileLayer, nn.Module], ...]

    @contextlib.contextmanager
    def at_strength(self, strength: float) -> Iterator[None]:
        """Within, the models are changed; afterwards they are again what they were, to the bit."""
        kept: list[tuple[nn.Parameter, Tensor]] = []
        try:
            with torch.no_grad():
                for name, layer, module in self.layers if strength else ():
                    for weight, change in _changes(layer, module):
                        kept.append((weight, weight.detach().clone()))
                        moved = {end: tensor.to(weight.device) for end, tensor in layer.tensors.items()}
                        weight.copy_(change(name, FileLayer(layer.kind, moved), weight.float(), strength))
            yield
        finally:
            with torch.no_grad():
                for weight, before in reversed(kept):
                    weight.copy_(before)


def live_adapter(base: BaseModel, file: AdapterFile) -> LiveAdapter:
    """Raises Refusal for a file of another family of base models, or with layers that this one does not have."""
    if file.base_kind not in (None, base.kind):
        raise Refusal(
            f"{file.path} is for {KIND_WORDS[file.base_kind]} and the base model is {KIND_WORDS[base.kind]}; "
            "give files of the same family"
        )
    places = layer_places(base.kind, base.configs["unet"])
    models: dict[str, Any] = {"unet": base.unet, **dict(zip(_TEXT_PARTS, base.text_encoders, strict=False))}
    modules = {part: dict(model.named_modules()) for part, model in models.items()}
    found, missing = [], []
    for name, layer in file.layers.items():
        place = places.get(name)
        module = _module(modules[place.part], place.path) if place is not None and place.part in modules else None
        if module is None:
            missing.append(name)
        else:
            found.append((name, layer, module))
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise Refusal(
            f"{file.path}: {len(missing)} of {len(file.layers)} layers are not in the base model "
            f"({', '.join(missing[:_LISTED])}{more}); give the base model that it was made for, or one like it"
        )
    return LiveAdapter(tuple(found))


def _module(modules: Mapping[str, nn.Module], path: str) -> nn.Module | None:
    """Some of transformers' text encoders have one level more."""
    return modules.get(path) or modules.get(f"text_model.{path}")


def _changes(layer: FileLayer, module: nn.Module) -> Iterator[tuple[nn.Parameter, Any]]:
    weight, bias = module.get_parameter("weight"), getattr(module, "bias", None)
    if layer.kind != "bias":
        yield weight, changed_weight
    if bias is not None and bias_change(layer) is not None:
        yield bias, changed_bias
