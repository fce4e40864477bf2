"""Sheets of pictures side by side: held-out crops over time, and what a step sees after degradation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lora_trainer.trainers.preview_sheet import spread, write_table

SHOWN_TIMES = 6  # moments of a training that fit side by side


@dataclass(frozen=True)
class Crop:
    """A row of the sheet: (h, w, 3) pixels, and the files of the crop at each validation, oldest first."""

    name: str
    enlarged: np.ndarray
    original: np.ndarray
    moments: Sequence[Path]


def draw_sheet(path: Path, crops: Sequence[Crop]) -> None:
    """Rows of: the plain enlargement, the result at moments of the training, the original."""
    steps = spread([int(file.stem.rsplit("_", 1)[1]) for file in crops[0].moments], SHOWN_TIMES)
    rows = []
    for crop in crops:
        files = {int(file.stem.rsplit("_", 1)[1]): file for file in crop.moments}
        shots = [_read(files.get(step), crop.original.shape) for step in steps]
        rows.append([crop.enlarged, *shots, crop.original])
    write_table(path, ["bicubic", *(f"step {step}" for step in steps), "original"], rows)


def _read(file: Path | None, shape: tuple[int, ...]) -> np.ndarray:
    if file is None:
        return np.full(shape, 255, np.uint8)
    with Image.open(file) as image:
        return np.array(image.convert("RGB"))
