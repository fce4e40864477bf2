"""The command line of the dataset doctor: a folder or a preset of each trainer, its exit status, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config.reader import load_preset
from lora_trainer.errors import Refusal
from lora_trainer.trainers.lora.data import training_set
from tests.data.doctor.test_duplicates import scene
from tests.report.test_write import Page
from tools.dataset_doctor import main

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = {
    "demo": "19 pictures",
    "lora/example": "12 pictures",
    "finetune/example": "12 pictures",
    "super_resolution/example": "12 pictures",
    "gan/example": "1,700 images",
    "restoration/example": "45 pictures",
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_all_trainers_are_fine(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    page = tmp_path / "page.html"
    assert main(["--preset", f"presets/{name}.json", "--output", str(page)]) == 0
    said = capsys.readouterr()
    assert f": {EXAMPLES[name]}. Nothing is wrong with it." in said.out
    assert said.out.strip().endswith(str(page))
    found = Page(page.read_text(encoding="utf-8"))
    assert (found.open, found.scripts) == ([], 0)


def test_a_refusal_has_the_sentences_of_the_training(
    tmp_path: Path, write_preset: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "1_cat"
    folder.mkdir(parents=True)
    scene(0, (128, 128)).save(folder / "a.png")
    (folder / "b.jpg").write_bytes(b"nothing")
    scene(1, (900, 9)).save(folder / "c.png")
    preset = write_preset(train_data_dir=str(folder.parent))
    with pytest.raises(Refusal) as refused:
        training_set(load_preset(preset).preset, 1)  # type: ignore[arg-type]
    page = tmp_path / "page.html"
    assert main(["--preset", str(preset), "--output", str(page)]) == 2
    assert capsys.readouterr().err.strip().splitlines() == list(refused.value.problems)
    (folder / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(Refusal) as refused:
        training_set(load_preset(preset).preset, 1)  # type: ignore[arg-type]
    assert main(["--preset", str(preset), "--output", str(page)]) == 2
    assert refused.value.problems[0] in capsys.readouterr().err


def test_overrides_and_missing_folders(
    tmp_path: Path, write_preset: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    page, preset = tmp_path / "page.html", write_preset()
    assert main(["--preset", str(preset), "--set", f"train_data_dir={tmp_path / 'none'}", "--output", str(page)]) == 2
    said = capsys.readouterr()
    assert "none: the folder of the training pictures does not exist; check train_data_dir" in said.err
    assert "No pictures were found." in said.out
    assert main([str(tmp_path / "none")]) == 2
    assert "the folder of the pictures does not exist" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([])
    assert "give either a folder of pictures or --preset FILE" in capsys.readouterr().err


def test_a_folder_without_numbers_is_read_with_those_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("a.png", "deep/b.png", "deep/er/c.png", ".hidden/d.png"):
        (tmp_path / "set" / place).parent.mkdir(parents=True, exist_ok=True)
        scene(len(place), (256, 256)).save(tmp_path / "set" / place)
    page = tmp_path / "page.html"
    words = ["--resolution", "256", "--enlarge", "--batch-size", "3", "--output", str(page)]
    assert main([str(tmp_path / "set"), *words]) == 0
    assert f"{tmp_path / 'set'}: 3 pictures." in capsys.readouterr().out
    assert "256 x 256 3 3 1" in Page(page.read_text(encoding="utf-8")).text


def test_a_restorers_list_and_the_held_out_pictures_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for side, kinds in (("GT", "abc"), ("LQ", "abc")):
        for number, name in enumerate(kinds):
            for root in ("train", "held_out") if name == "a" else ("train",):
                place = tmp_path / root / "Rain" / side
                place.mkdir(parents=True, exist_ok=True)
                scene(number, (160, 120) if (side, name) != ("LQ", "c") else (150, 120)).save(place / f"{name}.png")
    example: dict[str, Any] = json.loads((REPOSITORY / "presets/restoration/example.json").read_text(encoding="utf-8"))
    example |= {"train_dir": str(tmp_path / "train"), "val_dir": str(tmp_path / "held_out"), "train_types": ["Rain"]}
    example |= {"degradation_types": [], "out_size": 128, "$schema": ""}
    preset = tmp_path / "preset.json"
    preset.write_text(json.dumps(example), encoding="utf-8")
    page = tmp_path / "page.html"
    assert main(["--preset", str(preset), "--output", str(page)]) == 2
    said = capsys.readouterr()
    assert said.err.strip().endswith("bring both to one size")
    text = Page(page.read_text(encoding="utf-8")).text
    assert "3 pictures to train 4 partners 1 measured" in text
    assert "1 measured picture is trained too" in text
    assert "4 pictures are enlarged to be trained" in text  # 120 px to squares of 128 px


def test_a_picture_is_not_overwritten_by_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"a picture")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), "--output", str(picture)])
    assert ended.value.code == 2
    assert f"--output {picture}: the page must end in .html; correct the name" in capsys.readouterr().err
    assert picture.read_bytes() == b"a picture"
