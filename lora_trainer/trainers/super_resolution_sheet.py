"""Sheets of pictures side by side: held-out crops over time, and what a step sees after degradation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lora_trainer import atomic

SHOWN_TIMES = 6  # moments of a training that fit side by side
GAP_PX, LABEL_PX = 4, 18
INK, PAPER = (20, 20, 20), (255, 255, 255)


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


def spread(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of the steps, evenly, the first and the last among them."""
    ordered = sorted(set(steps))
    if len(ordered) <= most:
        return ordered
    places = [round(index * (len(ordered) - 1) / (most - 1)) for index in range(most)]
    return [ordered[place] for place in places]


def write_table(path: Path, titles: Sequence[str], rows: Sequence[Sequence[np.ndarray]]) -> None:
    """Pictures (h, w, 3) in a table with a title over each column, as a PNG file, atomically."""
    widths = [max(row[column].shape[1] for row in rows) for column in range(len(titles))]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    sheet = Image.new(
        "RGB", (sum(widths) + GAP_PX * (len(widths) + 1), sum(heights) + GAP_PX * len(rows) + LABEL_PX), PAPER
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    left = GAP_PX
    for column, title in enumerate(titles):
        draw.text((left, 2), title, INK, font=font)
        top = LABEL_PX
        for row, height in zip(rows, heights, strict=True):
            sheet.paste(Image.fromarray(row[column]), (left, top))
            top += height + GAP_PX
        left += widths[column] + GAP_PX
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, buffer.getvalue())


def _read(file: Path | None, shape: tuple[int, ...]) -> np.ndarray:
    if file is None:
        return np.full(shape, 255, np.uint8)
    with Image.open(file) as image:
        return np.array(image.convert("RGB"))
