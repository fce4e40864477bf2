"""The LoRA of a one-step restorer: which of the UNet's layers it covers, and how it begins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal, did_you_mean
from lora_trainer.models.adapters.layer import ADAPTER, Dropouts, LayerPlan
from lora_trainer.models.adapters.lora import LoraLayer
from lora_trainer.models.adapters.network import PEFT, add_adapter, fuse_layers


def lora_paths(unet: nn.Module, modules: Sequence[str], key: str) -> tuple[str, ...]:
    """The layers whose path is one of the names or ends with one after a point, in the UNet's order.

    Raises Refusal, which begins with the preset's key, for names that fit no layer.
    """
    layers = [path for path, layer in unet.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    if unknown := [name for name in modules if not any(_is_named(path, name) for path in layers)]:
        known = {path.rpartition(".")[2] for path in layers}
        raise Refusal(
            *(
                f"{key}: the UNet has no linear layer and no convolution named {name}{did_you_mean(name, known)}"
                for name in unknown
            )
        )
    return tuple(path for path in layers if any(_is_named(path, name) for name in modules))


def add_restoration_lora(unet: nn.Module, paths: Sequence[str], rank: int, seed: int) -> None:
    """Freeze the UNet and put a float32 LoRA of scale 1 beside every path, which changes nothing yet.

    Down is normal with the standard deviation 1 / rank, and follows from the seed and the path alone; up is zero.
    """
    plans = {path: LayerPlan(path, PEFT, rank, alpha=float(rank)) for path in paths}
    add_adapter(unet, plans, Dropouts(), seed)
    for path, layer in unet.named_modules():
        if isinstance(layer, LoraLayer):
            down = layer.lora_A[ADAPTER].weight
            if down.device.type == "meta":
                continue
            values = torch.randn(down.shape, generator=torch_generator(seed, "restoration_lora", path))
            with torch.no_grad():
                down.copy_(values / rank)
    fuse_layers(unet)


def _is_named(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")
