"""A sheet over time shows what there is, in order, and stays small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.trainers.preview_sheet import Cell, Moment, draw_over_time, spread, write_grid


def moments(folder: Path, count: int, side_px: int = 256) -> list[Moment]:
    """Plain pictures whose grey is the step; handed over in the wrong order."""
    found = []
    for step in range(count):
        file = folder / f"{step}.png"
        Image.new("RGB", (side_px, side_px // 2), (step, step, step)).save(file)
        found.append(Moment(step, f"step {step}", file))
    return found[::-1]


def greys(sheet: Path, wide: int, high: int) -> list[int]:
    """The grey in the middle of each cell, row by row."""
    with Image.open(sheet) as image:
        pixels = np.array(image)
    lefts = range(4, pixels.shape[1] - wide, wide + 4)
    tops = range(18 + 18, pixels.shape[0] - high + 1, high + 18 + 4)
    return [int(pixels[top + high // 2, left + wide // 2, 0]) for top in tops for left in lefts]


@pytest.mark.parametrize(
    ("count", "size", "shown"),
    [
        (1, (264, 168), [0]),
        (3, (3 * 260 + 4, 168), [0, 1, 2]),
        (7, (4 * 260 + 4, 168 + 150), [0, 1, 2, 3, 4, 5, 6, 255]),
        (60, (6 * 260 + 4, 168 + 3 * 150), spread(range(60), 24)),
    ],
)
def test_the_moments_in_their_order(tmp_path: Path, count: int, size: tuple[int, int], shown: list[int]) -> None:
    sheet = tmp_path / "sheets" / "over_time.png"
    draw_over_time(sheet, "a cat", moments(tmp_path, count))
    with Image.open(sheet) as image:
        assert image.size == size
    assert greys(sheet, 256, 128) == shown


def test_large_pictures_become_thumbnails_and_small_ones_stay(tmp_path: Path) -> None:
    for side_px, wide in ((1024, 256), (96, 96)):
        draw_over_time(tmp_path / "sheet.png", "", moments(tmp_path, 2, side_px))
        with Image.open(tmp_path / "sheet.png") as image:
            assert image.size == (2 * (wide + 4) + 4, 18 + wide // 2 + 4)


def test_some_evenly_with_the_first_and_the_last() -> None:
    assert spread([5, 1, 3, 3], 6) == [1, 3, 5]
    assert spread(range(100), 4) == [0, 33, 66, 99]
    assert len(spread(range(1000), 24)) == 24


def test_a_caption_has_room_and_a_title_is_cut(tmp_path: Path) -> None:
    cells = [[Cell(np.zeros((8, 8, 3), np.uint8), "a caption that is wider"), Cell(np.zeros((8, 8, 3), np.uint8), "b")]]
    write_grid(tmp_path / "a.png", cells, "a title " * 50)
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.array(image)
    assert pixels.shape[0] == 18 + 18 + 8 + 4
    assert 100 < pixels.shape[1] < 200
    assert (pixels[:, -4:] == 255).all()
    assert (pixels[:18] < 128).any()
