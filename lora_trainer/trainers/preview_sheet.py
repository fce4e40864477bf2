"""Sheets of pictures with captions: what a run has drawn, over time."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lora_trainer import atomic

GAP_PX, LABEL_PX, FONT_PX = 4, 18, 12
INK, PAPER = (20, 20, 20), (255, 255, 255)
COLUMNS, ROWS, THUMBNAIL_PX = 6, 4, 256  # of a sheet over time, which stays about as large as this for ever


@dataclass(frozen=True)
class Cell:
    """A picture (h, w, 3) of 0 to 255, with its caption above it."""

    pixels: np.ndarray
    caption: str = ""


@dataclass(frozen=True)
class Moment:
    """A picture of the same subject after so many steps."""

    step: int
    caption: str
    file: Path


def draw_over_time(path: Path, title: str, moments: Sequence[Moment]) -> None:
    """Thumbnails of the moments in their order, as a PNG file. Of many, some evenly chosen ones."""
    ordered = sorted(moments, key=lambda moment: moment.step)
    shown = [ordered[place] for place in spread(range(len(ordered)), COLUMNS * ROWS)]
    cells = [Cell(_thumbnail(moment.file), moment.caption) for moment in shown]
    columns = min(COLUMNS, math.ceil(len(cells) / math.ceil(len(cells) / COLUMNS)))  # rows of about the same length
    write_grid(path, [cells[start : start + columns] for start in range(0, len(cells), columns)], title)


def spread(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of the steps, evenly, the first and the last among them."""
    ordered = sorted(set(steps))
    if len(ordered) <= most:
        return ordered
    places = [round(index * (len(ordered) - 1) / (most - 1)) for index in range(most)]
    return [ordered[place] for place in places]


def write_grid(path: Path, rows: Sequence[Sequence[Cell]], title: str = "") -> None:
    """The rows of cells one below the other, in columns, as a PNG file, atomically. The title is cut to the width."""
    font = ImageFont.load_default(FONT_PX)
    columns = range(max(len(row) for row in rows))
    widths = [max(_width(row[column], font) for row in rows if column < len(row)) for column in columns]
    labels = [LABEL_PX if any(cell.caption for cell in row) else 0 for row in rows]
    heights = [max(cell.pixels.shape[0] for cell in row) for row in rows]
    top = LABEL_PX if title else 0
    size = (sum(widths) + GAP_PX * (len(widths) + 1), top + sum(heights) + sum(labels) + GAP_PX * len(rows))
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP_PX, 2), _cut(title, size[0] - 2 * GAP_PX, font), INK, font=font)
    for row, label, height in zip(rows, labels, heights, strict=True):
        left = GAP_PX
        for cell, width in zip(row, widths, strict=False):
            draw.text((left, top + 2), cell.caption, INK, font=font)
            sheet.paste(Image.fromarray(cell.pixels), (left, top + label))
            left += width + GAP_PX
        top += label + height + GAP_PX
    write_png(path, sheet)


def write_table(path: Path, titles: Sequence[str], rows: Sequence[Sequence[np.ndarray]]) -> None:
    """Pictures (h, w, 3) in a table with a title over each column, as a PNG file, atomically."""
    first, *others = rows
    titled = [Cell(picture, title) for picture, title in zip(first, titles, strict=True)]
    write_grid(path, [titled, *([Cell(picture) for picture in row] for row in others)])


def write_png(path: Path, image: Image.Image, **options: object) -> None:
    """Atomically, in a folder that is made when missing."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, buffer.getvalue())


def _width(cell: Cell, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> int:
    written = math.ceil(font.getlength(cell.caption)) + GAP_PX if cell.caption else 0
    return max(int(cell.pixels.shape[1]), written)


def _cut(text: str, width_px: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """One line that fits."""
    line = " ".join(text.split())
    if font.getlength(line) <= width_px:
        return line
    while line and font.getlength(f"{line} ...") > width_px:
        line = line[:-1]
    return f"{line} ..."


def _thumbnail(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        small = image.convert("RGB")
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    return np.array(small)
