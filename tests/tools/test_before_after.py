"""The sheet of a base model and a LoRA in it: a row for each prompt, a column for each strength."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.trainers import preview_sheet
from lora_trainer.trainers.preview_sheet import Cell
from tools.before_after import main

TinyPath = Callable[..., Path]
RandomLora = Callable[..., Path]
PROMPTS = "a cat --w 64 --h 64 --s 2\na red house in the snow --w 64 --h 64 --s 2"


def draw(*words: object) -> int:
    return main([str(word) for word in words])


def test_strength_zero_is_the_base_and_more_is_not(
    tmp_path: Path, tiny_path: TinyPath, random_lora: RandomLora, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, lora, sheet = tiny_path("sd15"), random_lora("sd15"), tmp_path / "sheet ü.png"
    found: list[list[Cell]] = []
    write = preview_sheet.write_grid

    def remember(path: Path, rows: list[list[Cell]], title: str) -> None:
        found.extend(rows)
        write(path, rows, title)

    monkeypatch.setattr(preview_sheet, "write_grid", remember)
    words = ("--base", base, "--lora", lora, "--prompts", PROMPTS, "--device", "cpu")
    assert draw(*words, "--strengths", 0, 0, 1, "--output", sheet) == 0
    assert [[cell.caption for cell in row] for row in found] == [["", "base", "base", "strength 1"], [""] * 4]
    for _, one, again, changed in found:
        assert one.pixels.shape == (64, 64, 3)
        assert np.array_equal(one.pixels, again.pixels)
        assert np.abs(one.pixels.astype(int) - changed.pixels).max() > 8
    assert not np.array_equal(found[0][1].pixels, found[1][1].pixels)
    with Image.open(sheet) as image:
        assert image.height > 2 * 64


def test_what_cannot_be_drawn_is_refused(
    tmp_path: Path, tiny_path: TinyPath, random_lora: RandomLora, capsys: pytest.CaptureFixture[str]
) -> None:
    base, lora = tiny_path("sd15"), random_lora("sd15")
    words = ("--base", base, "--lora", lora, "--prompts", "a cat")
    assert draw(*words, "--output", tmp_path / "sheet.jpg") == 2
    assert "must end in .png" in capsys.readouterr().err
    (tmp_path / "there.png").write_bytes(b"mine")
    assert draw(*words, "--output", tmp_path / "there.png") == 2
    assert "is there already" in capsys.readouterr().err
    assert draw("--base", base, "--lora", lora, "--prompts", "", "--output", tmp_path / "s.png") == 2
    assert "there is no prompt" in capsys.readouterr().err
