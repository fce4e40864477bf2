"""LoRA files as a training leaves them, of which the second factors are made up instead of learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lora_trainer.config.restoration_model import LORA_MODULES
from lora_trainer.models.base_model import load_base_model
from lora_trainer.models.restoration.base import find_base
from lora_trainer.models.restoration.checkpoint import lora_parameters, lora_state, write_restorer
from lora_trainer.models.restoration.lora import add_restoration_lora, lora_paths
from lora_trainer.models.restoration.stand_in import stand_in_base

FACTS = {"trainer": "restoration", "prediction": "epsilon", "model_t": "150", "coeff_t": "120", "out_size": "64"}


def write_lora(folder: Path, base: Path | None, strength: float, name: str = "state_dict", **facts: str) -> Path:
    """The .safetensors, of rank 4, beside a .pth; `base` is None for the stand-in. At strength 0 nothing is changed."""
    unet: Any = (stand_in_base() if base is None else load_base_model(find_base(str(base), "base"))).unet
    add_restoration_lora(unet, lora_paths(unet, LORA_MODULES, "modules"), 4, seed=1)
    with torch.no_grad():
        for number, (key, weight) in enumerate(lora_parameters(unet).items()):
            if ".lora_B." in key:
                weight.normal_(std=strength, generator=torch.Generator().manual_seed(number))
    known = {**FACTS, "base_model": "stand-in" if base is None else base.name, "prompt": "a photo", **facts}
    return write_restorer(folder, lora_state(unet), name, known)[1]
