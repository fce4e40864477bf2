"""The command line with everything that people get wrong: one clear message, exit status 2, and nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
WritePreset = Callable[..., Path]
Train = Callable[..., int]


def edited(preset: Path, old: str, new: str) -> None:
    text = preset.read_text(encoding="utf-8")
    assert old in text
    preset.write_text(text.replace(old, new), encoding="utf-8")


def typo(preset: Path, photos: Path) -> str:
    edited(preset, '"unet_lr"', '"unet_lrr"')
    return "unet_lrr: unknown key; did you mean unet_lr?"


def wrong_type(preset: Path, photos: Path) -> str:
    edited(preset, '"epoch": 2', '"epoch": "two"')
    return 'epoch: found "two"; write a whole number'


def out_of_range(preset: Path, photos: Path) -> str:
    edited(preset, '"seed": 7', '"seed": 7, "noise_offset": 3')
    return "noise_offset: found 3; write a number from 0 to 1"


def contradiction(preset: Path, photos: Path) -> str:
    edited(preset, '"seed": 7', '"seed": 7, "v2": true')
    edited(preset, '"v2": false, ', "")
    return "v2"


def truncated(preset: Path, photos: Path) -> str:
    text = preset.read_text(encoding="utf-8")
    preset.write_text(text[: len(text) // 2], encoding="utf-8")
    return "preset.json:1:"


def a_list(preset: Path, photos: Path) -> str:
    preset.write_text("[]", encoding="utf-8")
    return "preset.json:1:1"


def placeholder(preset: Path, photos: Path) -> str:
    edited(preset, '"output_name": "tiny"', '"output_name": "..."')
    return "output_name: still the placeholder ..."


def no_folder(preset: Path, photos: Path) -> str:
    photos.rename(photos.with_name("elsewhere"))
    return "bilder ä"


def empty_folder(preset: Path, photos: Path) -> str:
    for file in (photos / "2_photo").iterdir():
        file.unlink()
    return "none of its 1 numbered folders holds a picture"


def leaf_folder(preset: Path, photos: Path) -> str:
    (photos / "2_photo").rename(photos / "photo")
    return "bilder ä"


def caption_in_latin_1(preset: Path, photos: Path) -> str:
    (photos / "2_photo" / "cat.txt").write_bytes("Käse".encode("latin-1"))
    return "cat.txt"


def not_a_model(preset: Path, photos: Path) -> str:
    file = photos / "model.safetensors"
    file.write_text("this is no model", encoding="utf-8")
    content = json.loads(preset.read_text(encoding="utf-8"))
    preset.write_text(json.dumps(content | {"pretrained_model_name_or_path": str(file)}), encoding="utf-8")
    return "model.safetensors"


def other_kind(preset: Path, photos: Path) -> str:
    edited(preset, '"sdxl": true', '"sdxl": false')
    return "Stable Diffusion XL"


def wrong_prompt(preset: Path, photos: Path) -> str:
    edited(preset, '"seed": 7', '"seed": 7, "sample_every_n_epochs": 1, "sample_prompts": "a cat --w wide"')
    return "sample_prompts: line 1: --w wide"


MISTAKES = [
    typo, wrong_type, out_of_range, contradiction, truncated, a_list, placeholder, no_folder, empty_folder,
    leaf_folder, caption_in_latin_1, not_a_model, other_kind, wrong_prompt,
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
@pytest.mark.parametrize("option", ["--check", "--restart"])
def test_a_mistake_is_named_and_nothing_is_written(
    write_preset: WritePreset, photos: Path, out: Path, train: Train, capsys: pytest.CaptureFixture[str],
    mistake: Callable[[Path, Path], str], option: str,
) -> None:  # fmt: skip
    preset = write_preset()
    words = mistake(preset, photos)
    before = sorted(path for path in preset.parent.rglob("*"))
    assert train(preset, option) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert 1 <= len(lines) <= 3
    assert any(words in line for line in lines)
    assert "Traceback" not in said.err
    assert sorted(path for path in preset.parent.rglob("*")) == before
    assert not out.exists()


def test_all_damaged_pictures_are_named_at_once_before_the_model_is_loaded(
    write_preset: WritePreset, photos: Path, out: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset()
    folder = photos / "2_photo"
    (folder / "cat.jpg").write_bytes((folder / "cat.jpg").read_bytes()[:3000])
    (folder / "coins.jpg").write_text("no picture", encoding="utf-8")
    assert train(preset) == 2
    said = capsys.readouterr()
    assert [line.split(": ")[0] for line in said.err.splitlines()] == [
        str(folder / "cat.jpg"),
        str(folder / "coins.jpg"),
    ]
    assert "loading" not in said.out
    assert not out.exists()


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True, encoding="utf-8", check=False
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], "--dry-run"),
        (["--explain", "noise_offset"], "noise_offset (noise and loss)"),
        (["--schema", "lora"], '"$schema"'),
        (["--preset", "presets/pdxl.json", "--check"], "still the placeholder"),
    ],
)
def test_quick_answers_do_without_torch(arguments: list[str], words: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try: runpy.run_module('lora_trainer', run_name='__main__')\n"
        "finally: print('heavy:', sorted({'torch', 'numpy', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    done = python("-c", code)
    assert words in done.stdout + done.stderr
    heavy = ["numpy"] if "numpy" in done.stdout.rsplit("heavy:", 1)[1] else []
    assert f"heavy: {heavy}" in done.stdout


def test_unknown_keys_and_trainers_are_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    from lora_trainer.__main__ import main

    assert main(["--explain", "nois_ofset"]) == 2
    assert "did you mean noise_offset?" in capsys.readouterr().err
    assert main(["--schema", "lroa"]) == 2
    assert "lora" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        main([])
    assert usage.value.code == 2
    assert "--preset FILE is needed" in capsys.readouterr().err


def test_an_interrupt_before_the_training_is_no_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lora_trainer.__main__ import main

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lora_trainer.config.reader.load_stages", interrupted)
    assert main(["--preset", "presets/demo.json", "--check"]) == 130
    assert capsys.readouterr() == ("", "")


def test_check_of_a_right_preset_says_so(
    write_preset: WritePreset, train: Train, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(clip_skip=2)
    assert train(preset, "--check") == 0
    said = capsys.readouterr().out.splitlines()
    assert said == ["clip_skip: without effect: SDXL always takes the layer before the last", f"{preset}: fine"]
    assert not out.exists()
