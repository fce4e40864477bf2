"""Tiny data sets and presets for the tests of the GAN trainer."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE_PX = 16


def write_images(path: Path, count: int = 24, labels: bool = True, channels: int = 3, side: int = SIDE_PX) -> Path:
    """A zip of squares and crosses of random colours, which are the two classes."""
    numbers = np.random.default_rng(4)
    rows = []
    with zipfile.ZipFile(path, "w") as file:
        for number in range(count):
            pixels = np.zeros((side, side, channels), np.uint8) + numbers.integers(0, 90, channels, dtype=np.uint8)
            ink = numbers.integers(140, 255, channels, dtype=np.uint8)
            kind, quarter = number % 2, side // 4
            if kind:
                pixels[quarter:-quarter, quarter:-quarter] = ink
            else:
                pixels[quarter * 2, :] = pixels[:, quarter] = ink
            name = f"00000/img{number:08d}.png"
            file.writestr(name, png(pixels))
            rows.append([name, kind])
        if labels:
            file.writestr("dataset.json", json.dumps({"labels": rows}))
    return path


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def tiny(folder: Path, images: Path, **keys: Any) -> dict[str, Any]:
    """A preset that trains in a second; None takes a key out."""
    preset: dict[str, Any] = {
        "trainer": "gan",
        "cfg": "stylegan2",
        "data": str(images),
        "output_dir": str(folder),
        "batch": 8,
        "gamma": 0.1,
        "kimg": 0.08,
        "tick": 0.04,
        "snap": 1,
        "cbase": 64,
        "cmax": 8,
        "map_depth": 1,
        "workers": 0,
        "metrics": "none",
        "log_every": 1,
        "log_with": "none",
        "checkpoint_every_n_epochs": 0,
        "seed": 3,
        **keys,
    }
    return {key: value for key, value in preset.items() if value is not None}
