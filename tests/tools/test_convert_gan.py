"""A command line of StyleGAN3's train.py becomes a preset that trains the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from lora_trainer.config import reader
from lora_trainer.config.gan import GanPreset
from lora_trainer.config.gan_rules import GAN_RULES
from lora_trainer.config.gan_sections import unfold_gan
from lora_trainer.config.reader import load_preset
from lora_trainer.config.setting import keys_of
from lora_trainer.config.trainers import TRAINERS, Trainer
from tools.convert_preset import main
from tools.presets.stylegan import OPTIONS

AFHQ = """\
# Train CREPS for AFHQv2 using 8 GPUs.
python train.py --outdir=~/training-runs --cfg=creps --data=~/datasets/afhqv2-512x512.zip \\
  --gpus=8 --batch=32 --gamma=8.2 --mirror=1
"""
METFACES = """\
#!/bin/bash
export DATA="data sets/metfaces-1024x1024.zip"
python train.py --outdir=training-runs --cfg=creps --data="$DATA" \\
    --gpus=8 --batch=32 --gamma=6.6 --mirror=1 --kimg=5000 --snap=5 \\
    --resume=creps-ffhq-512x512.pkl
"""
EVERYTHING = (
    "python train.py --outdir=runs --cfg=stylegan2 --data=d.zip --gpus=2 --batch=64 --gamma=1e-1 --cond=yes "
    "--mirror=True --aug=fixed --resume=a.pkl --freezed=10 --p=0.3 --target=0.5 --batch-gpu=16 --cbase=16384 "
    "--cmax=256 --glr=0.0025 --dlr=2.5e-3 --map-depth=2 --mbstd-group=8 --desc=2024 --metrics=fid50k_full,pr50k3_full "
    "--kimg=1000 --tick=1 --snap=10 --seed=7 --fp32=0 --nobench=on --workers=2"
)
Convert = Callable[..., tuple[GanPreset, dict[str, Any]]]


@pytest.fixture
def convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Convert:
    """Convert a text, or words after --, and load what comes of it."""
    monkeypatch.setattr(reader, "TRAINERS", {**TRAINERS, "gan": Trainer(GanPreset, GAN_RULES, unfold=unfold_gan)})

    def converted(text: str | list[str], *more: str) -> tuple[GanPreset, dict[str, Any]]:
        source, target = tmp_path / "mine.sh", tmp_path / "neu" / "mine.json"
        if isinstance(text, list):
            assert main([str(target), *more, "--", *text]) == 0
        else:
            source.write_text(text, encoding="utf-8")
            assert main([str(source), str(target), *more]) == 0
        written = json.loads(target.read_text(encoding="utf-8"))
        return cast(GanPreset, load_preset(target).preset), written

    return converted


def test_the_example_of_the_list(convert: Convert, capsys: pytest.CaptureFixture[str]) -> None:
    preset, written = convert(AFHQ)
    home = str(Path.home())
    assert list(written) == ["trainer", "outdir", "cfg", "data", "gpus", "batch", "gamma", "mirror"]
    assert (written["cfg"], written["gpus"], written["batch"], written["gamma"]) == ("creps", 8, 32, 8.2)
    assert written["mirror"] is True
    assert written["data"].startswith(home)
    assert Path(preset.output_dir).name == "creps-afhqv2-512x512-batch32-gamma8.2"
    said = capsys.readouterr().out
    assert f"note: outdir: ~/training-runs is read as {Path.home() / 'training-runs'}" in said
    assert (
        "not carried over: python: starts the script; the preset is started by accelerate launch --num_processes 8 -m "
        "lora_trainer"
    ) in said
    assert "to mend" not in said


def test_a_transfer_with_a_variable(convert: Convert) -> None:
    preset, _ = convert(METFACES)
    assert (preset.data, preset.resume) == ("data sets/metfaces-1024x1024.zip", "creps-ffhq-512x512.pkl")
    assert (preset.gammas[0], preset.kimg, preset.snap, preset.batch) == (6.6, 5000, 5, 32)
    assert preset.output_dir == "training-runs/creps-metfaces-1024x1024-batch32-gamma6.6"


def test_every_option_has_its_key(convert: Convert, capsys: pytest.CaptureFixture[str]) -> None:
    preset, written = convert(EVERYTHING)
    expected = {
        "outdir": "runs", "cfg": "stylegan2", "data": "d.zip", "gpus": 2, "batch": 64, "gamma": 0.1, "cond": True,
        "mirror": True, "aug": "fixed", "resume": "a.pkl", "freezed": 10, "p": 0.3, "target": 0.5, "batch_gpu": 16,
        "cbase": 16384, "cmax": 256, "glr": 0.0025, "dlr": 0.0025, "map_depth": 2, "mbstd_group": 8, "desc": "2024",
        "metrics": ["fid50k_full", "pr50k3_full"], "kimg": 1000, "tick": 1, "snap": 10, "seed": 7, "fp32": False,
        "nobench": True, "workers": 2,
    }  # fmt: skip
    assert {key: value for key, value in written.items() if key != "trainer"} == expected
    given = {key: getattr(preset, key) for key in expected}
    assert given == {**expected, "metrics": ("fid50k_full", "pr50k3_full")}
    assert capsys.readouterr().out.count("to mend") == 0
    assert set(OPTIONS) <= set(keys_of(GanPreset))


def test_words_that_a_shell_has_made_already(convert: Convert, tmp_path: Path) -> None:
    words = ["torchrun", "/opt/stylegan3/train.py", "--outdir", "runs", "--cfg", "stylegan3-r", "--data", "my data"]
    preset, _ = convert([*words, "--gpus", "1", "--batch", "4", "--gamma", ".5", "--metrics", "none"])
    assert (preset.cfg, preset.data, preset.gammas[0], preset.measured) == ("stylegan3-r", "my data", 0.5, ())
    preset, _ = convert([*words, "--batch=4", "--gamma=1"], "--output-dir", str(tmp_path / "läufe"))
    assert preset.output_dir == str(tmp_path / "läufe")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--subset=100", "to mend: --subset is no option of train.py that is known here"),
        ("--gama=8", "to mend: --gama is no option of train.py that is known here; did you mean --gamma?"),
        ("--batchgpu 8", "to mend: --batchgpu is no option of train.py that is known here; did you mean --batch-gpu?"),
        ("--kimg", "to mend: --kimg has no value; write --kimg=..."),
        ("--desc=$NAME", "to mend: --desc: nothing says what $NAME is; write the value"),
        ("--mirror=1 2", 'to mend: "2" belongs to no option; put a value with blanks in quotes'),
        ("-n", "not carried over: -n: --dry-run of lora_trainer shows the plan"),
        ("--nhwc=1", "not carried over: --nhwc: the layout in memory is chosen by the device"),
        ("--seed=0", "note: seed: 0 draws a new seed for each run; write another number to have the same run again"),
        ("--cond=maybe", 'cond: found "maybe"; write true or false'),
        ("--cfg=auto", 'cfg: found "auto"; write one of stylegan2, stylegan3-t, stylegan3-r, creps, r3gan'),
        ("--resume=https://a.b/c.pkl", "resume: nothing is downloaded; save the snapshot and write the path"),
        ("--target=0.5 --aug=noaug", "without effect: target: aug is noaug"),
    ],
)
def test_what_cannot_be_carried_over_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, told: str
) -> None:
    monkeypatch.setattr(reader, "TRAINERS", {**TRAINERS, "gan": Trainer(GanPreset, GAN_RULES, unfold=unfold_gan)})
    source = tmp_path / "mine.bat"
    source.write_text(
        f"python train.py --outdir=r --data=d --gpus=1 --batch=8 --cfg=creps --gamma=1 {option}\n", "utf-8"
    )
    assert main([str(source)]) == 0
    assert told in capsys.readouterr().out


def test_another_program_s_train_py_is_not_taken_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "every.sh"
    source.write_text("python train.py --resume_ckpt base --data_root input --lr 1e-6\n", "utf-8")
    assert main([str(source)]) == 2
    assert "train.py: trains no LoRA" in capsys.readouterr().err
