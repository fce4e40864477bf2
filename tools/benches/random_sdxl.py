"""An SDXL of random weights in several sizes, and pictures of noise: no value makes a step faster or slower."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from lora_trainer.models.base_folder import save_folder
from lora_trainer.models.base_model import load_base_model
from lora_trainer.models.detect import detect
from tools.benches.lines import Machine

SEED, PICTURES = 1, 8

TINY = {
    "kind": "sdxl", "prediction": "epsilon", "resolution": 128,
    "vae": {"block_out_channels": [16, 32, 64, 128], "layers_per_block": 1, "norm_num_groups": 4},
    "unet": {"block_out_channels": [64, 96, 160], "layers_per_block": 1, "transformer_layers_per_block": [1, 1, 1],
             "addition_time_embed_dim": 32},
    "text_encoder": {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 384},
    "text_encoder_2": {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 384},
}  # fmt: skip
MID = {
    "kind": "sdxl", "prediction": "epsilon", "resolution": 256, "vae": TINY["vae"],
    "unet": {"block_out_channels": [192, 384, 576], "transformer_layers_per_block": [1, 1, 2]},
    "text_encoder": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024},
    "text_encoder_2": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024},
}  # fmt: skip
SIZES: Mapping[str, tuple[dict[str, Any], int]] = {  # what differs from the published SDXL, and pixels a side
    "tiny": (TINY, 128),
    "mid": (MID, 256),
    "full": ({"kind": "sdxl", "prediction": "epsilon", "vae": TINY["vae"]}, 1024),  # whose own VAE no step runs
}


@dataclass(frozen=True)
class Setting:
    """What all ways have in common. `base` and `pictures` lie in the folder, presets and outputs go there."""

    size: str
    batch: int
    machine: Machine
    folder: Path

    @property
    def side_px(self) -> int:
        return SIZES[self.size][1]

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    def preset(self, keys: Mapping[str, Any]) -> Path:
        path = self.folder / "preset.json"
        path.write_text(json.dumps(keys), encoding="utf-8")
        return path


@contextmanager
def setting_of(size: str, batch: int, machine: Machine, dtype: torch.dtype) -> Iterator[Setting]:
    """The model in this format, and the pictures, in a folder that goes afterwards."""
    with TemporaryDirectory() as name:
        setting = Setting(size, batch, machine, Path(name))
        write_base(setting, dtype)
        write_pictures(setting)
        yield setting


def write_base(setting: Setting, dtype: torch.dtype) -> None:
    description = setting.folder / "base.json"
    description.write_text(json.dumps(SIZES[setting.size][0]), encoding="utf-8")
    base = load_base_model(detect(description), dtype=dtype)
    setting.base.mkdir()
    save_folder(setting.base, base.kind, base.parts, base.configs["scheduler"], dtype)


def write_pictures(setting: Setting) -> None:
    """As many as eight, and at least as many as a step has, with captions."""
    folder = setting.pictures / "1_noise"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(SEED)
    for number in range(max(PICTURES, setting.batch)):
        pixels = draw.integers(0, 256, (setting.side_px, setting.side_px, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"noise number {number}, of all colours", encoding="utf-8")
