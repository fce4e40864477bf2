"""Which weights of a text encoder a full fine-tuning trains: those that are read, less those that are frozen."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from lora_trainer.models.base_configs import Kind
from lora_trainer.models.text_encoding import reachable_layers

_LAYER = re.compile(r"(?:^|\.)encoder\.layers\.(\d+)\.")


@dataclass(frozen=True)
class TextFreezing:
    """EveryDream2's keys. ``last_layers`` trains only so many layers, from the end, and no embeddings; 0: all."""

    last_layers: int = 0
    embeddings: bool = False
    final_layer_norm: bool = False


def trained_text_weights(
    encoder: nn.Module, kind: Kind, index: int, clip_skip: int, freezing: TextFreezing
) -> dict[str, nn.Parameter]:
    """The weights by name. Those that have no part in what the UNet reads, behind ``clip_skip``, are never among them.

    ``index`` is the encoder's number: SDXL has two, and of the first one the last layer and norm are not read.
    """
    layers = 1 + max((int(found[1]) for name, _ in encoder.named_parameters() if (found := _LAYER.search(name))))
    reachable = reachable_layers(kind, index, layers, clip_skip)
    first = max(0, len(reachable) - freezing.last_layers) if freezing.last_layers else 0

    def is_trained(name: str) -> bool:
        if layer := _LAYER.search(name):
            return int(layer[1]) in reachable[first:]
        if "embeddings." in name:
            return not (freezing.embeddings or freezing.last_layers)
        if "final_layer_norm." in name:
            return not freezing.final_layer_norm and not (kind == "sdxl" and index == 0)
        return True

    return {name: weight for name, weight in encoder.named_parameters() if is_trained(name)}
