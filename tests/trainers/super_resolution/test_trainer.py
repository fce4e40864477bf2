"""What the super-resolution trainer makes of its keys, and that other programs read what it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spandrel
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.trainers.waiting import stop_after

REPOSITORY = Path(__file__).parents[3]
PHOTOS = REPOSITORY / "presets" / "photos" / "2_photo"

Train = Callable[..., int]
Write = Callable[..., Path]
Rows = Callable[[], list[dict[str, Any]]]

COMPACT = {"type": "compact", "num_feat": 8, "num_conv": 2}
GAN: dict[str, Any] = {
    "network_d": {"type": "unetdiscriminatorsn", "num_feat": 8},
    "losses": [
        {"type": "l1loss", "loss_weight": 1.0},
        {"type": "hsluvloss", "criterion": "charbonnier", "loss_weight": 0.5},
        {"type": "ganloss", "gan_type": "vanilla", "loss_weight": 0.1},
        {"type": "perceptualloss", "loss_weight": 0},
    ],
    "optim_d": {"type": "AdamW", "lr": 1e-3},
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three small pictures, one in a subfolder."""
    folder = tmp_path / "bilder ä"
    (folder / "more").mkdir(parents=True)
    for name, place in (("coffee", folder), ("coins", folder), ("rocket", folder / "more")):
        with Image.open(PHOTOS / f"{name}.jpg") as image:
            image.crop((20, 20, 100, 84)).save(place / f"{name}.png")
    return folder


@pytest.fixture
def write(tmp_path: Path, pictures: Path) -> Write:
    """`write(key=value, ...)` writes a preset that trains in a second."""

    def made(**keys: Any) -> Path:
        preset: dict[str, Any] = {
            "trainer": "super_resolution",
            "output_dir": str(tmp_path / "out put"),
            "output_name": "tiny",
            "scale": 2,
            "network_g": COMPACT,
            "dataroot_gt": str(pictures),
            "lq_size": 16,
            "batch_size_per_gpu": 4,
            "num_worker_per_gpu": 0,
            "dataset_enlarge_ratio": 4,
            "total_iter": 6,
            "losses": [{"type": "l1loss"}],
            "optim_g": {"type": "AdamW", "lr": 1e-3},
            "scheduler": {"type": "MultiStepLR", "milestones": [4], "gamma": 0.5},
            "ema_decay": 0.9,
            "log_every": 1,
            "log_with": "none",
            "seed": 3,
            **keys,
        }
        path = tmp_path / "preset.json"
        path.write_text(json.dumps({key: value for key, value in preset.items() if value is not None}))
        return path

    return made


def weights(out: Path, name: str = "tiny") -> dict[str, torch.Tensor]:
    return load_file(out / f"{name}.safetensors")


def test_the_file_is_one_that_spandrel_knows(train: Train, write: Write, out: Path, rows: Rows) -> None:
    assert train(write(scale=4, total_iter=20)) == 0
    model = spandrel.ModelLoader().load_from_file(out / "tiny.safetensors")
    assert (model.architecture.id, model.scale, model.input_channels) == ("Compact", 4, 3)
    assert model(torch.rand(1, 3, 11, 13)).shape == (1, 3, 44, 52)
    losses = [row["loss"] for row in rows()]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert [row["lr/g"] for row in rows()][3:6] == [1e-3, 5e-4, 5e-4]  # milestone 4 lowers the fifth step's rate


def test_a_pth_file_is_read_too(train: Train, write: Write, out: Path) -> None:
    assert train(write(save_checkpoint_format="pth", save_precision="fp16")) == 0
    model = spandrel.ModelLoader().load_from_file(out / "tiny.pth")
    assert (model.architecture.id, model.scale) == ("Compact", 2)


@pytest.mark.parametrize("keys", [{}, {**GAN, "net_d_iters": 2, "net_d_init_iters": 1}], ids=["plain", "gan"])
def test_a_stopped_and_continued_run_writes_the_bytes_of_an_undisturbed_one(
    train: Train, write: Write, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]
) -> None:
    extra = {
        "high_order_degradation": True, "gaussian_noise_prob": 1.0, "noise_range": [5, 20], "use_moa": True,
        "network_g": {"type": "swinir_s", "depths": [2], "embed_dim": 12, "num_heads": [2], "window_size": 8},
        **keys,
    }  # fmt: skip
    assert train(write(output_dir=str(tmp_path / "whole"), **extra)) == 0
    preset = write(**extra)
    stop_after(monkeypatch, 3)
    assert train(preset) == 143
    assert not (out / "tiny.safetensors").exists()
    assert train(preset) == 0
    names = ["tiny.safetensors", *(["tiny_net_d.safetensors"] if keys else [])]
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert (out / "metrics.jsonl").read_text().count("\n") == 6


def test_the_number_of_readers_changes_nothing(train: Train, write: Write, out: Path, tmp_path: Path) -> None:
    assert train(write()) == 0
    assert train(write(num_worker_per_gpu=2, cache_gib=0, output_dir=str(tmp_path / "b"))) == 0
    assert (out / "tiny.safetensors").read_bytes() == (tmp_path / "b" / "tiny.safetensors").read_bytes()


def test_passes_make_the_batch_of_one(train: Train, write: Write, out: Path, tmp_path: Path) -> None:
    assert train(write(batch_size_per_gpu=4)) == 0
    assert train(write(batch_size_per_gpu=2, accum_iter=2, output_dir=str(tmp_path / "b"))) == 0
    other = weights(tmp_path / "b")
    for name, weight in weights(out).items():
        torch.testing.assert_close(weight, other[name], rtol=1e-4, atol=1e-5)


def test_each_term_is_logged_and_they_add_up(train: Train, write: Write, rows: Rows) -> None:
    assert train(write(**GAN, total_iter=2)) == 0
    for row in rows():
        terms = [row[name] for name in ("l1", "hsluv_hue", "hsluv_saturation", "hsluv_lightness", "gan")]
        assert sum(terms) == pytest.approx(row["loss"], rel=1e-5)
        assert row["d/real"] + row["d/fake"] == pytest.approx(row["d/loss"], rel=1e-5)
        assert set(row) >= {"lr/g", "lr/d", "grad_norm", "d/grad_norm"}


def test_generator_and_discriminator_take_turns(train: Train, write: Write, rows: Rows) -> None:
    assert train(write(**GAN, net_d_iters=2, net_d_init_iters=2)) == 0
    assert ["loss" in row for row in rows()] == [False, False, False, True, False, True]
    assert all("d/loss" in row for row in rows())


def test_a_resting_discriminator(train: Train, write: Write, rows: Rows) -> None:
    assert train(write(**GAN, adaptive_d=True, adaptive_d_threshold=0.5)) == 0
    assert ["d/loss" in row for row in rows()] == [False] * 6


def test_a_larger_scale_starts_from_the_smaller_one(
    train: Train, write: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = {"type": "span", "feature_channels": 8}
    stages = [{"stage": "2x", "scale": 2}, {"stage": "4x", "scale": 4, "strict_load_g": False, "lq_size": 8}]
    preset = write(network_g=network, scale=None, stages=stages, total_iter=2)
    assert train(preset) == 0
    said = capsys.readouterr().out
    assert "tiny_2x.safetensors: 203 of 205 tensors (99.0 %) taken over" in said
    assert "upsampler.0.weight" in said
    assert spandrel.ModelLoader().load_from_file(out / "2_4x" / "tiny_4x.safetensors").scale == 4
    assert train(preset) == 0
    assert capsys.readouterr().out.count("this run is finished") == 2


def test_a_pretrain_with_nothing_in_common_is_refused(
    train: Train, write: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(write(total_iter=1)) == 0
    network = {"type": "span", "feature_channels": 8}
    pretrain = str(out / "tiny.safetensors")
    preset = write(network_g=network, pretrain_network_g=pretrain, strict_load_g=False, output_name="other")
    assert train(preset) == 2
    assert "nothing in this file fits the network" in capsys.readouterr().err


def test_held_out_pictures_are_measured_and_shown_over_time(
    train: Train, write: Write, pictures: Path, out: Path, rows: Rows
) -> None:
    keys = {"val_enabled": True, "val_dataroot_gt": str(pictures / "more"), "val_freq": 2, "save_best": "psnr"}
    assert train(write(**keys, val_crop_px=32, tile_size=8, tile_overlap=4, log_with="tensorboard")) == 0
    found = {row["step"]: row for row in rows() if "val/psnr" in row}
    assert sorted(found) == [2, 4, 6]
    assert all(0 < row["val/ssim"] < 1 for row in found.values())
    assert (out / "tiny-best.safetensors").is_file()
    assert len(list((out / "sample" / "validation").glob("000_rocket_*.png"))) == 3
    with Image.open(out / "sample" / "over_time.png") as sheet:
        row = np.array(sheet)[18:50]  # below the titles
        assert sheet.height == 32 + 4 + 18
    with Image.open(pictures / "more" / "rocket.png") as image:
        original = np.array(image)[16:48, 24:56]
    assert any(np.array_equal(row[:, left : left + 32], original) for left in range(row.shape[1] - 31))
    recorded = EventAccumulator(str(out / "logs" / "tiny"), size_guidance={"images": 0}).Reload()
    shown = recorded.Images("validation/over_time")
    assert [each.step for each in shown] == [2, 4, 6]
    assert shown[-1].encoded_image_string[:4] == b"\x89PNG"
    assert (shown[-1].width, shown[-1].height) == (row.shape[1], 54)


def test_paired_folders_are_used_as_they_are(
    train: Train, write: Write, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    low = tmp_path / "lr"
    for file in pictures.rglob("*.png"):
        place = low / file.relative_to(pictures)
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            image.resize((40, 32)).save(place)
    assert train(write(dataroot_lq=str(low))) == 0
    (low / "coffee.png").unlink()
    with Image.open(low / "coins.png") as image:
        image.resize((39, 32)).save(low / "coins.png")
    assert train(write(dataroot_lq=str(low)), "--restart") == 2
    said = capsys.readouterr().err
    assert f"coffee.png: has no partner in {low}" in said
    assert "coins.png: 80 x 64 pixels, but with scale 2 its partner" in said


def test_a_nan_names_its_term(train: Train, write: Write, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = [{"type": "l1loss"}, {"type": "msssiml1loss", "loss_weight": 1e39}]
    assert train(write(losses=losses)) == 1
    assert "by msssiml1, so the weights were not touched" in capsys.readouterr().err
    assert json.loads((out / "status.json").read_text())["state"] == "failed"


def test_wrong_names_and_options_have_their_place(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    from lora_trainer.__main__ import main

    path = write(
        network_g={"type": "compact", "num_fet": 8},
        losses=[{"type": "l2loss"}, {"type": "hsluvloss", "hue_wieght": 1}, {"type": "ganloss", "gan_type": "wgam"}],
        network_d={"type": "unet"},
        optim_g={"type": "AdamW", "lr": 1e-3, "weight_decy": 0},
        scheduler={"type": "CosineAnealingLR"},
        val_enabled=True,
        val_dataroot_gt="nowhere",
        metrics={"psnr": {"type": "calculate_psnr", "crop_boarder": 4}},
    )
    assert main(["--preset", str(path), "--check"]) == 2
    said = capsys.readouterr().err
    for place, cure in (
        ("network_g.num_fet", "did you mean num_feat?"),
        ("losses.0.type", "there is no loss l2loss"),
        ("losses.1.hue_wieght", "did you mean hue_weight?"),
        ("losses.2.gan_type", 'found "wgam"; write one of vanilla'),
        ("network_d", "unet"),
        ("optim_g", "did you mean weight_decay?"),
        ("scheduler", "did you mean CosineAnnealingLR?"),
        ("metrics.psnr.crop_boarder", "did you mean crop_border?"),
        ("val_dataroot_gt", "there is no such folder"),
    ):
        lines = [line for line in said.splitlines() if f" {place}: " in line]
        assert lines and cure in lines[0], (place, said)


def test_a_dry_run_draws_what_a_step_sees(
    train: Train, write: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(write(**GAN, high_order_degradation=True, jpeg_range=[5, 10]), "--dry-run") == 0
    assert sorted(file.name for file in out.iterdir()) == ["dataset.html", "tiny_samples.png"]
    with Image.open(out / "tiny_samples.png") as sheet:
        pixels = np.array(sheet).astype(int)
    row = pixels[18:50]  # below the titles: high resolution, then low
    differences = [np.abs(row[:, 4:36] - row[:, x : x + 32]).mean() for x in range(36, row.shape[1] - 31)]
    assert 1 < min(differences) < 60
    said = capsys.readouterr().out
    assert "compact 2x" in said
    assert "unetdiscriminatorsn" in said


@pytest.mark.slow
def test_two_processes_train_what_one_does(train: Train, write: Write, out: Path, tmp_path: Path) -> None:
    keys = {**GAN, "high_order_degradation": True}
    assert train(write(batch_size_per_gpu=4, **keys)) == 0
    preset = write(batch_size_per_gpu=2, output_dir=str(tmp_path / "two"), **keys)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "-m", "lora_trainer", "--preset", str(preset)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "ACCELERATE_USE_CPU": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    other = weights(tmp_path / "two")
    for name, weight in weights(out).items():
        torch.testing.assert_close(weight, other[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "presets" / "super_resolution").glob("*.json")), ids=lambda p: p.stem
)
def test_every_shipped_preset_is_right_but_for_its_folders(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_trainer.config.reader import load_stages
    from lora_trainer.trainers.super_resolution.checks import part_problems

    monkeypatch.chdir(REPOSITORY)
    for loaded in load_stages(path):
        assert part_problems(loaded) == []
        assert not [note for note in loaded.notes if "former" in note]
        assert loaded.inert == {}, loaded.inert


EXAMPLE = REPOSITORY / "presets" / "super_resolution" / "example.json"
STAGES = (("1_2x", "span_2x", 2), ("2_4x", "span_4x", 4), ("3_degradations", "span_degradations", 4))


def test_the_example_goes_through_its_stages(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert train(EXAMPLE, "--set", f"output_dir={tmp_path}", "total_iter=2", "val_freq=2", "save_best=psnr") == 0
    for folder, name, scale in STAGES:
        assert spandrel.ModelLoader().load_from_file(tmp_path / folder / f"{name}.safetensors").scale == scale
        assert (tmp_path / folder / f"{name}-best.safetensors").is_file()
        assert (tmp_path / folder / "sample" / "over_time.png").is_file()


@pytest.mark.slow
def test_the_example_beats_bicubic(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is shipped, on the photograph that it never sees."""
    from lora_trainer.data.resize import bicubic, downscale_lq
    from lora_trainer.losses.image_quality import psnr

    monkeypatch.chdir(REPOSITORY)
    assert train(EXAMPLE, "--set", f"output_dir={tmp_path}") == 0
    with Image.open(PHOTOS / "cat.jpg") as image:
        cat = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    for folder, name, scale in STAGES[:2]:
        model = spandrel.ModelLoader().load_from_file(tmp_path / folder / f"{name}.safetensors")
        low = downscale_lq(cat, scale)
        plain = bicubic(low, (160, 240)).clamp(0, 1)
        assert psnr(model(low), cat, 4) > psnr(plain, cat, 4), name
