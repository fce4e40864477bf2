"""A restoration of seconds, and HYPIR's way of loading what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PHOTOS = Path(__file__).parents[3] / "presets" / "photos" / "2_photo"
TYPES = ("Blur", "Haze", "Lowlight", "Rain", "Snow")
MODULES = [
    "to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_shortcut", "conv_out", "proj_in", "proj_out",
    "ff.net.2", "ff.net.0.proj",
]  # fmt: skip
GAN = {"lambda_gan": 0.5, "discriminator_backbone": "stand-in"}


def write_pairs(root: Path, kinds: tuple[str, ...], names: tuple[str, ...], size: tuple[int, int] = (96, 80)) -> Path:
    """`root`/<kind>/LQ and GT with crops of photographs, of which the degraded ones are darker."""
    for kind in kinds:
        for name in names:
            with Image.open(PHOTOS / f"{name}.jpg") as image:
                gt = image.convert("RGB").crop((10, 10, 10 + size[0], 10 + size[1]))
            lq = Image.fromarray((np.asarray(gt) * 0.7).astype(np.uint8))
            for side, picture in (("GT", gt), ("LQ", lq)):
                (root / kind / side).mkdir(parents=True, exist_ok=True)
                picture.save(root / kind / side / f"{name}.png")
    return root


def preset_writer(folder: Path, base: Callable[..., Path]) -> Callable[..., Path]:
    """`write(key=value, ...)` writes a preset that trains in seconds; a key that is None is left out."""
    train = write_pairs(folder / "bilder ä", ("Rain",), ("coffee", "coins", "rocket"))

    def write(**keys: Any) -> Path:
        preset: dict[str, Any] = {
            "trainer": "restoration",
            "output_dir": str(folder / "out put"),
            "output_name": "tiny",
            "base_model_path": str(base("sd21")),
            "train_dir": [str(train)],
            "lpips_weights": "stand-in",
            "out_size": 64,
            "batch_size": 2,
            "dataloader_num_workers": 0,
            "lora_rank": 2,
            "lambda_lpips": 0,
            "lambda_gan": 0,
            "lr_G": 1e-3,
            "lr_D": 1e-3,
            "ema_decay": 0.5,
            "gradient_checkpointing": False,
            "mixed_precision": "no",
            "max_train_steps": 4,
            "log_image_steps": 0,
            "log_grad_steps": 0,
            "log_every": 1,
            "log_with": "none",
            "seed": 3,
            **keys,
        }
        path = folder / "preset.json"
        path.write_text(json.dumps({key: value for key, value in preset.items() if value is not None}))
        return path

    return write
