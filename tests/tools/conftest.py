"""Upscalers of a few kilobytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lora_trainer.models.sr_file import save_network
from lora_trainer.models.sr_networks import build_network


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """`model("compact", 2, num_feat=8)` writes a file of random weights."""

    def write(name: str, scale: int, **options: object) -> Path:
        torch.manual_seed(0)
        network = build_network(name, scale, options)
        path = tmp_path / f"modell ü {name}.safetensors"
        save_network(path, network, network.module.state_dict())
        return path

    return write


@pytest.fixture
def random_lora(tmp_path: Path, tiny_path: Callable[..., Path]) -> Callable[..., Path]:
    """`random_lora("sdxl", rank=4, alpha=2, conv=True, name="a")` writes a LoRA for a tiny base."""
    from lora_trainer.models.adapter_facts import base_facts, network_facts
    from lora_trainer.models.adapter_file import FileLayer, write_adapter_file
    from lora_trainer.models.adapter_merge import lora_tensors
    from lora_trainer.models.adapter_names import kohya_layers
    from lora_trainer.models.base_weights import open_base

    def write(
        kind: str, *, rank: int = 4, alpha: float = 2, conv: bool = False, name: str = "lora", seed: int = 0
    ) -> Path:
        draws = torch.Generator().manual_seed(seed)
        layers = {}
        with open_base(tiny_path(kind, ".safetensors")) as base:
            for place, layer in kohya_layers(kind, base.unet_config).items():
                shape = base.shape(place) if place in base.slots else ()
                inner = place.part == "unet" and ".attentions." not in place.path
                if len(shape) < 2 or place.path == "text_projection" or (inner and not (conv and "s." in place.path)):
                    continue
                up, down = (
                    torch.randn(size, generator=draws).mul_(0.1)
                    for size in ((shape[0], rank), (rank, torch.Size(shape[1:]).numel()))
                )
                layers[layer] = FileLayer("lora", lora_tensors(up, down, float(alpha), shape[2:]))
        path = tmp_path / f"{name} ü.safetensors"
        facts = {**base_facts(kind), **network_facts(layers), "ss_output_name": name, "ss_training_comment": "None"}
        write_adapter_file(path, layers, torch.float32, facts)
        return path

    return write
