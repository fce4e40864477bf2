"""traiNNer-redux's YAML files become presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config.reader import load_preset
from lora_trainer.config.super_resolution import SuperResolutionPreset
from tools.convert_preset import main

OLD = """\
name: 4x_DAT_2
scale: 4
use_amp: true
amp_bf16: true
num_gpu: auto
manual_seed: 1024
datasets:
  train:
    name: Train Dataset
    type: PairedImageDataset
    dataroot_gt: [hr, hr2]
    dataroot_lq: [lr, lr2]
    io_backend:
      type: disk
    lq_size: 64
    use_hflip: true
    num_worker_per_gpu: 8
    batch_size_per_gpu: 8
    dataset_enlarge_ratio: auto
    prefetch_mode: ~
  val:
    name: Val Dataset
    type: PairedImageDataset
    dataroot_gt: [v]
    dataroot_lq: [w]
    io_backend: {type: disk}
network_g:
  type: DAT_2
path:
  resume_state: ~
train:
  ema_decay: 0.999
  optim_g:
    type: AdamW
    lr: 2e-4
    betas: [0.9, 0.99]
  scheduler:
    type: MultiStepLR
    milestones: [250000, 400000]
    gamma: 0.5
  total_iter: 500000
  ms_ssim_l1_opt:
    type: MSSSIML1Loss
    alpha: 0.1
    loss_weight: 1.0
  gan_opt: {type: GANLoss, gan_type: vanilla, loss_weight: 0}
val:
  val_enabled: false
  val_freq: 1e3
  save_img: true
logger:
  print_freq: 100
  use_tb_logger: true
  wandb: {project: ~, resume_id: ~}
dist_params: {backend: nccl, port: 29500}
"""

NEW = """\
name: 4x_span
scale: 4
use_amp: true
high_order_degradation: true
jpeg_range: [75, 95]
dithering_prob: 0.5
datasets:
  train:
    type: realesrgandataset
    dataroot_gt: hr
    kernel_range: [5, 17]
    lq_size: 64
network_g: {type: span, norm: false}
network_d: {type: dunet}
path: {pretrain_network_g: pretrain.pth, strict_load_g: true}
train:
  optim_g: {type: AdamW, lr: !!float 1e-4}
  total_iter: 500000
  losses:
    - {type: mssimloss, loss_weight: 0.5}
    - {type: ganloss, gan_type: vanilla, loss_weight: 0.1}
logger: {print_freq: 100, save_checkpoint_freq: 1000, use_tb_logger: false}
"""


def converted(folder: Path, text: str) -> tuple[SuperResolutionPreset, dict[str, Any]]:
    source, target = folder / "über.yml", folder / "out" / "mine.json"
    source.write_text(text, encoding="utf-8")
    assert main([str(source), str(target)]) == 0
    preset = load_preset(target).preset
    assert isinstance(preset, SuperResolutionPreset)
    return preset, json.loads(target.read_text(encoding="utf-8"))


def test_an_old_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset, written = converted(tmp_path, OLD)
    assert list(written)[:5] == ["trainer", "output_dir", "output_name", "seed", "scale"]
    assert (preset.output_dir, preset.output_name, preset.seed, preset.log_every) == (
        "output/4x_DAT_2", "4x_DAT_2", 1024, 100,
    )  # fmt: skip
    assert preset.number_format == "bf16"
    assert (preset.dataroot_gt, preset.dataroot_lq, preset.val_dataroot_gt) == (("hr", "hr2"), ("lr", "lr2"), ("v",))
    assert preset.optim_g.options["lr"] == 2e-4  # YAML takes 2e-4 for a word
    assert preset.val_freq == 1000
    assert [loss.as_json() for loss in preset.losses] == [
        {"type": "MSSSIML1Loss", "alpha": 0.1, "loss_weight": 1.0},
        {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0},
    ]
    said = capsys.readouterr().out
    assert "not carried over: num_gpu: says how the program is launched" in said
    assert "not carried over: dist_params: says how the program is launched" in said
    assert "to mend" not in said


def test_a_new_file_and_what_is_missing_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset, _ = converted(tmp_path, NEW)
    assert preset.high_order_degradation
    assert (preset.jpeg_range, preset.kernel_range, preset.dataroot_gt) == ((75, 95), (5, 17), ("hr",))
    assert (preset.network_d.type, preset.log_with, preset.save_checkpoint_freq) == ("dunet", "none", 1000)
    assert "not carried over: dithering_prob: there is no such key here\n" in capsys.readouterr().out


def test_what_the_trainer_would_refuse_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    converted(tmp_path, NEW.replace("norm: false", "nrom: false"))
    said = capsys.readouterr().out
    assert "network_g.nrom" in said
    assert "did you mean norm?" in said


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1\nb: 2", "über.yml:2:2: this is no YAML file"),
        ("a: 1", "über.yml: no configuration that is known: neither traiNNer-redux's, which has a network_g"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "über.yml"
    source.write_text(text, encoding="utf-8")
    assert main([str(source)]) == 2
    assert problem in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))


def test_nothing_is_overwritten_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "a.yml", tmp_path / "a.json"
    source.write_text(NEW, encoding="utf-8")
    target.write_text("mine", encoding="utf-8")
    assert main([str(source)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert target.read_text(encoding="utf-8") == "mine"
