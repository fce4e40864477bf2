"""Whole trainings, as a person starts them: results, ends, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_trainer.trainers import run as running
from tests.trainers.waiting import wait_for_steps

Rows = Callable[[], list[dict[str, Any]]]
Train = Callable[..., int]
Start = Callable[..., "subprocess.Popen[str]"]
WritePreset = Callable[..., Path]

VARIED = {
    "flip_aug": True,
    "shuffle_caption": True,
    "keep_tokens": 1,
    "caption_dropout_rate": 0.1,
    "noise_offset": 0.05,
    "noise_offset_random_strength": True,
    "optimizer": "AdamW8bit",
    "gradient_accumulation_steps": 2,
    "train_batch_size": 1,
    "lr_scheduler": "cosine",
    "checkpoint_every_n_steps": 2,
}


def test_a_run_that_is_killed_again_and_again_writes_the_bytes_of_an_undisturbed_one(
    write_preset: WritePreset, start: Start, train: Train, out: Path, rows: Rows, tmp_path: Path
) -> None:
    preset = write_preset(epoch=5, **VARIED)
    assert train(preset, "--set", f"output_dir={tmp_path / 'undisturbed'}") == 0
    for steps in (1, 6, 13):  # right after the start, between two checkpoints, and late
        process = start(preset)
        wait_for_steps(process, out, steps)
        process.kill()
        process.communicate()
        assert json.loads((out / "status.json").read_text(encoding="utf-8"))["state"] == "running"
    assert train(preset) == 0
    assert (out / "tiny.safetensors").read_bytes() == (tmp_path / "undisturbed" / "tiny.safetensors").read_bytes()
    undisturbed = [json.loads(line) for line in (tmp_path / "undisturbed" / "metrics.jsonl").open(encoding="utf-8")]
    kept = ("step", "epoch", "loss", "grad_norm", "lr/unet", "lr/text_encoder")
    assert [[row[key] for key in kept] for row in rows()] == [[row[key] for key in kept] for row in undisturbed]
    assert not (out / "checkpoints").exists()


@pytest.mark.parametrize(
    "number", [signal.SIGINT, *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGTERM, signal.SIGHUP))]
)
def test_a_signal_saves_and_the_same_command_goes_on(
    write_preset: WritePreset, start: Start, train: Train, out: Path, tmp_path: Path, number: signal.Signals
) -> None:
    preset = write_preset(epoch=40, checkpoint_every_n_epochs=0)
    process = start(preset)
    wait_for_steps(process, out, 2)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "to go on, give the same command again: python -m lora_trainer --preset" in said
    status = json.loads((out / "status.json").read_text(encoding="utf-8"))
    assert (status["state"], status["exit_status"]) == ("stopped", 128 + number)
    done = status["step"]
    assert [found.name for found in (out / "checkpoints" / "tiny").iterdir()] == [f"step-{done:08d}"]
    assert train(preset, "--set", "epoch=2" if done <= 8 else f"max_train_steps={done + 2}") == 0
    length = json.loads((out / "status.json").read_text(encoding="utf-8"))["step"]
    assert train(preset, "--set", f"max_train_steps={length}", f"output_dir={tmp_path / 'at once'}") == 0
    assert (out / "tiny.safetensors").read_bytes() == (tmp_path / "at once" / "tiny.safetensors").read_bytes()


def test_two_processes_have_the_losses_of_one(
    write_preset: WritePreset, train: Train, out: Path, rows: Rows, tmp_path: Path
) -> None:
    """With a batch of 3 from buckets of 4 pictures: one step of each bucket has fewer pictures than processes."""
    keys: dict[str, Any] = {"train_batch_size": 1, "gradient_accumulation_steps": 3, "epoch": 3, "flip_aug": True}
    preset = write_preset(**keys)
    command = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "lora_trainer", "--preset", str(preset)]
    run_python(*command, ACCELERATE_USE_CPU="1")
    two = rows()
    single = str(tmp_path / "one")
    assert train(preset, "--set", "gradient_accumulation_steps=6", f"output_dir={single}") == 0
    one = [json.loads(line) for line in (Path(single) / "metrics.jsonl").open(encoding="utf-8")]
    assert len(one) == len(two) > 4
    np.testing.assert_allclose([row["loss"] for row in two], [row["loss"] for row in one], rtol=2e-6)
    np.testing.assert_allclose([row["grad_norm"] for row in two], [row["grad_norm"] for row in one], rtol=2e-4)


def run_python(*command: str, **environment: str) -> str:
    import os
    import sys

    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_several_processes_that_would_not_share_are_refused(write_preset: WritePreset, out: Path) -> None:
    import os
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "lora_trainer", "--preset", str(write_preset())],
        env={**{k: v for k, v in os.environ.items() if k != "ACCELERATE_USE_CPU"}, "WORLD_SIZE": "2", "RANK": "0"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    import torch

    if torch.cuda.is_available():
        pytest.skip("with GPUs the processes do share")
    assert done.returncode == 2
    assert "2 processes were started, but without a GPU each would train on its own" in done.stderr
    assert not out.exists()


def test_the_loss_falls_and_the_previews_change(write_preset: WritePreset, train: Train, out: Path, rows: Rows) -> None:
    prompt = "photo of a cat --w 64 --h 64 --d 1 --s 3 --l 2"
    preset = write_preset(
        kind="sd15", epoch=30, unet_lr=0.003, network_dim=16, network_alpha=16, sample_prompts=prompt,
        sample_every_n_epochs=100, train_batch_size=4, cache_latents=True,
    )  # fmt: skip
    assert train(preset) == 0
    losses = [row["loss"] for row in rows()]
    assert np.mean(losses[-12:]) < 0.95 * np.mean(losses[:6])
    first, last = (
        np.asarray(Image.open(out / "sample" / f"tiny_{done:06d}_00_1.png"), np.int16) for done in (0, len(losses))
    )
    assert np.abs(first - last).max() > 3


def test_untrained_the_preview_stays_as_it_was(write_preset: WritePreset, train: Train, out: Path) -> None:
    prompt = "photo of a cat --w 64 --h 64 --d 1 --s 2 --l 2"
    preset = write_preset(epoch=1, unet_lr=1e-12, text_encoder_lr=1e-12, sample_prompts=prompt, sample_every_n_epochs=9)
    assert train(preset) == 0
    pictures = sorted((out / "sample").glob("tiny_*_00_1.png"))
    assert len(pictures) == 2
    first, last = (np.asarray(Image.open(picture)) for picture in pictures)
    assert (first == last).all()


@pytest.mark.slow
def test_36_epochs_saved_every_second_write_17_numbered_files_and_the_last(
    write_preset: WritePreset, train: Train, out: Path, photos: Path
) -> None:
    for name in ("coffee", "coins", "galaxies"):
        (photos / "2_photo" / f"{name}.jpg").unlink()
    assert train(write_preset(epoch=36, save_every_n_epochs=2, train_batch_size=2, max_resolution="64,64")) == 0
    names = sorted(path.name for path in out.glob("*.safetensors"))
    assert names == [f"tiny-{epoch:06d}.safetensors" for epoch in range(2, 36, 2)] + ["tiny.safetensors"]


def test_a_finished_run_says_so_and_another_one_does_not_take_its_place(
    write_preset: WritePreset, train: Train, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(epoch=1)
    assert train(preset) == 0
    before = (out / "tiny.safetensors").read_bytes()
    said = capsys.readouterr().out
    assert f"losses: {out / 'metrics.jsonl'}" in said
    assert "TensorBoard" not in said  # log_with is none
    assert train(preset) == 0
    assert f"this run is finished: {out / 'tiny.safetensors'}; --restart trains it anew" in capsys.readouterr().out
    assert train(preset, "--set", "unet_lr=0.002") == 2
    assert "unet_lr was 0.001 and is now 0.002" in capsys.readouterr().err
    assert (out / "tiny.safetensors").read_bytes() == before
    assert train(preset, "--set", "unet_lr=0.002", "--restart") == 0
    assert (out / "tiny.safetensors").read_bytes() != before


def test_nan_stops_before_the_weights_are_touched_and_names_the_pictures(
    write_preset: WritePreset, train: Train, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(epoch=3, unet_lr=1e30, text_encoder_lr=0)
    assert train(preset) == 1
    said = capsys.readouterr().err
    assert "the loss is nan" in said
    assert "the weights were not touched" in said
    assert "2_photo/" in said
    assert "Traceback" not in said
    assert json.loads((out / "status.json").read_text(encoding="utf-8"))["state"] == "failed"
    assert not (out / "tiny.safetensors").exists()


def test_a_secret_reaches_no_file_and_no_output(
    write_preset: WritePreset, train: Train, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = "a1b2c3d4e5f6secret"
    preset = write_preset(epoch=1, wandb_api_key=secret, log_with="tensorboard")
    assert train(preset) == 0
    said = capfd.readouterr()
    assert secret not in said.out + said.err
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_a_dry_run_prints_the_plan_and_writes_a_page_about_the_pictures(
    write_preset: WritePreset, train: Train, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(write_preset(save_every_n_epochs=1, epoch=3, lr_scheduler="cosine"), "--dry-run") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "96 x 96: 4" in said
    assert "steps 4 an epoch, 12 in all, 3 epochs" in said
    assert "tiny-000002.safetensors" in said
    assert "one step of the largest batch:" in said
    assert "Nothing is wrong with it." in said
    assert [path.name for path in out.iterdir()] == ["dataset.html"]


def test_a_dry_run_on_damaged_pictures_leaves_the_page_and_is_refused(
    write_preset: WritePreset, train: Train, photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = next(path for path in photos.iterdir() if path.is_dir())
    (folder / "damaged.jpg").write_bytes(b"no picture")
    assert train(write_preset(), "--dry-run") == 2
    said = capsys.readouterr()
    assert "damaged.jpg: not a picture, or of a kind that Pillow does not know" in said.err
    assert "A training would refuse this data for 1 reason." in said.out
    assert "1 file cannot be read" in (out / "dataset.html").read_text(encoding="utf-8")


def test_pdxl_trains_on_a_cpu_and_says_what_it_does_instead(
    tiny_path: Callable[..., Path], photos: Path, out: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny_path("sdxl", ".safetensors")
    places = [f"pretrained_model_name_or_path={base}", f"train_data_dir={photos}", f"output_dir={out}"]
    small = ["output_name=pdxl", "epoch=3", "max_resolution=96,96", "bucket_reso_steps=32"]
    assert train(Path(__file__).parents[2] / "presets" / "pdxl.json", "--set", *places, *small) == 0
    said = capsys.readouterr().out.splitlines()
    for words in ('mixed_precision "fp16"', "TensorRT", "xformers"):
        assert len([line for line in said if words in line]) == 1, words
    assert sorted(path.name for path in out.glob("*.safetensors")) == ["pdxl-000002.safetensors", "pdxl.safetensors"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, "python -m lora_trainer"),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, "accelerate launch -m lora_trainer"),
        ({"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "2"}, "torchrun --nproc_per_node 2 -m lora_trainer"),
        ({"TORCHELASTIC_RUN_ID": "1", "ACCELERATE_MIXED_PRECISION": "bf16"}, "accelerate launch -m lora_trainer"),
    ],
)
def test_to_go_on_one_types_what_one_typed(monkeypatch: pytest.MonkeyPatch, told: dict[str, str], words: str) -> None:
    for name in ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        sys, "argv", ["lora_trainer", "--preset", "my preset.json", "--restart", "--set", "hub_token=x"]
    )
    assert running._command() == f'{words} --preset "my preset.json" --set hub_token=...'
