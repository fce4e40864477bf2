"""HYPIR's YAML files, the two of its guide and upstream's, become presets that train the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config.reader import Loaded, load_preset
from lora_trainer.config.restoration_loss import Lambdas
from tests.config.restoration_presets import GUIDE, load_written, preset_of
from tools.convert_preset import main

BASE = """\
output_dir: ./results

data_config:
  train:
    batch_size: 4
    dataloader_num_workers: 4
    dataset:
      target: HYPIR.dataset.paired_parquet.PairedParquetDataset
      params:
        file_meta:
          file_list: custom_5k.parquet
          lq_key: lq_path
          gt_key: gt_path
          prompt_key: prompt
        out_size: 512
        crop_type: none
        use_hflip: true
        use_rot: true
        return_file_name: false
    batch_transform:
      target: HYPIR.dataset.batch_transform.IdentityBatchTransform
      params:
        hq_key: GT
        extra_keys: [LQ, txt]
  val:
    val_dir: /data/AIO/Val
    degradation_types: [Blur, Haze, Lowlight, Rain, Snow]
    batch_size: 1
    num_samples_per_type: ~  # None = all

base_model_type: sd2
base_model_path: stabilityai/stable-diffusion-2-1-base
model_t: 200
coeff_t: 200
lora_rank: 256
lora_modules: [to_k, to_q, to_v, to_out.0, conv, conv1, conv2, conv_shortcut, conv_out, proj_in, proj_out, ff.net.2,
               ff.net.0.proj]
use_ema: true
ema_decay: 0.999
resume_ema: true

lambda_gan: 0.5
lambda_lpips: 5
lambda_l2: 1.0
lambda_l1: 1.0

lr_G: 1e-5
lr_D: 1e-5
optimizer_type: adam
opt_kwargs:
  betas: [0.9, 0.999]

mixed_precision: bf16
seed: 231
max_train_steps: 50000
gradient_accumulation_steps: 1
gradient_checkpointing: true
max_grad_norm: 1.0
logging_dir: logs
report_to: swanlab
swanlab_project: HYPIR
# swanlab_workspace: mine
checkpointing_steps: 500
checkpoints_total_limit: 2
resume_from_checkpoint: ~
log_image_steps: 100
log_grad_steps: 100
log_grad_modules: [conv_out]
validation_steps: 500
"""
CHANGES = {
    "custom_5k.parquet": "custom_5k_imp.parquet",
    "lambda_gan: 0.5": "lambda_gan: 0.3",
    "lambda_lpips: 5": "lambda_lpips: 3",
    "lambda_l2: 1.0": "lambda_l2: 2.0",
    "lambda_l1: 1.0": "lambda_l1: 2.0\nlambda_ssim: 1.0",
    "lr_G: 1e-5": "lr_G: 2e-5",
    "lr_D: 1e-5": "lr_D: 5e-6",
    "betas: [0.9, 0.999]": "betas: [0.9, 0.999]\n  weight_decay: 1e-4",
}
UPSTREAM = """\
output_dir: /path/to/save/experiment
data_config:
  train:
    batch_size: 24
    dataloader_num_workers: 8
    dataset:
      target: HYPIR.dataset.realesrgan.RealESRGANDataset
      params:
        file_meta:
          file_list: all.parquet
          image_path_prefix: /data
          image_path_key: image_path
          prompt_key: prompt
        file_backend_cfg:
          target: HYPIR.dataset.file_backend.HardDiskBackend
        out_size: 512
        crop_type: random
        use_hflip: true
        use_rot: false
        blur_kernel_size: 21
        kernel_list: ['iso', 'aniso']
        kernel_prob: [0.6, 0.4]
        blur_sigma: [0.2, 3]
        p_empty_prompt: 0.0
    batch_transform:
      target: HYPIR.dataset.batch_transform.RealESRGANBatchTransform
      params:
        hq_key: GT
        extra_keys: ["txt"]
        use_sharpener: true
        queue_size: 256
        resize_prob: [0.2, 0.7, 0.1]
        second_blur_prob: 0.7
        stage2_scale: 4
        resize_back: true
base_model_type: sd2
base_model_path: sd21
model_t: 200
coeff_t: 200
use_ema: true
lambda_gan: 0.5
lambda_lpips: 5
lambda_l2: 1.0
lr_G: 1.e-5
optimizer_type: rmsprop
opt_kwargs: {alpha: 0.9, eps: 1e-8}
report_to: tensorboard
checkpoints_total_limit: ~
resume_from_checkpoint: results/checkpoint-500
mystery: 3
"""


def improved() -> str:
    text = BASE
    for old, new in CHANGES.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


def converted(folder: Path, name: str, text: str) -> tuple[Loaded, dict[str, Any]]:
    source, target = folder / f"{name}.yaml", folder / "neue Läufe" / f"{name}.json"
    source.write_text(text, encoding="utf-8")
    assert main([str(source), str(target)]) == 0
    return load_preset(target), json.loads(target.read_text(encoding="utf-8"))


def test_the_guides_first_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded, written = converted(tmp_path, "sd2_finetune_5k", BASE)
    preset = preset_of(loaded)
    assert list(written)[:5] == ["trainer", "output_dir", "output_name", "seed", "base_model_path"]
    assert not any(isinstance(value, dict) for key, value in written.items() if key != "opt_kwargs")
    assert preset.output_name == "sd2_finetune_5k"
    assert preset.first_lambdas == Lambdas(l2=1, l1=1, lpips=5, ssim=0, gan=0.5)
    assert (written["lr_G"], written["lr_D"]) == (1e-5, 1e-5)
    assert preset.optimizer_options == {"betas": (0.9, 0.999)}
    assert (preset.log_with, preset.log_tracker_name, preset.logging_dir) == ("swanlab", "HYPIR", "")
    said = capsys.readouterr().out.splitlines()[1:]
    assert said == [
        "not carried over: return_file_name: messages name files in any case",
        "not carried over: base_model_type: there is only one family",
        "not carried over: resume_ema: a checkpoint always holds the copy",
        "note: crop_type: none squashes pictures into squares in HYPIR; here the square in the middle of each is seen",
    ]


def test_the_guides_improved_file_is_what_its_json_would_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded, written = converted(tmp_path, "sd2_finetune_5k_improved", improved())
    as_it_is = load_written(tmp_path / "sd2_finetune_5k_improved.json", GUIDE)
    assert loaded.steps_fingerprint() == as_it_is.steps_fingerprint()
    assert preset_of(loaded) == preset_of(as_it_is)
    assert preset_of(loaded).first_lambdas == Lambdas(l2=2, l1=2, lpips=3, ssim=1, gan=0.3)
    assert (written["lr_G"], written["lr_D"]) == (2e-5, 5e-6)
    assert written["opt_kwargs"] == {"betas": [0.9, 0.999], "weight_decay": 1e-4}
    assert "note: lambda_ssim: HYPIR computes this loss without a gradient" in capsys.readouterr().out


def test_upstreams_file_makes_the_bad_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded, written = converted(tmp_path, "sd2_train", UPSTREAM)
    preset = preset_of(loaded)
    assert (preset.high_order_degradation, preset.file_list, preset.gt_key) == (True, ("all.parquet",), "image_path")
    assert (preset.blur_prob2, preset.resize_prob, preset.kernel_list) == (0.7, (0.2, 0.7, 0.1), ("iso", "aniso"))
    assert (preset.optimizer_type, preset.optimizer_options) == ("RMSprop", {"alpha": 0.9, "eps": 1e-8})
    assert written["checkpoints_total_limit"] == 0  # not set is all there, and 2 here
    said = capsys.readouterr().out
    assert "not carried over: queue_size: " in said
    assert "not carried over: resize_back: the network wants the full size, so it is always done\n" in said
    assert "not carried over: resume_from_checkpoint: the same command goes on" in said
    assert "not carried over: mystery: there is no such key here\n" in said
    assert "hq_key" not in said
    assert "note: " not in said


def test_another_folder_and_what_is_to_be_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a b.yaml"
    source.write_text("base_model_path: sd21\nmodel_t: 2000\nfile_list: a.txt\n", encoding="utf-8")
    assert main([str(source)]) == 0
    written = json.loads((tmp_path / "a b.json").read_text(encoding="utf-8"))
    assert (written["trainer"], written["output_dir"], written["output_name"]) == ("restoration", "output/a b", "a b")
    assert "model_t: found 2000; write a whole number from 0 to 999" in capsys.readouterr().out
    assert main([str(source), str(tmp_path / "c.json"), "--output-dir", "runs/c"]) == 0
    assert json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))["output_dir"] == "runs/c"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BASE.replace("PairedParquetDataset", "MyDataset"), "a.yaml: data_config.train.dataset.target: found "
         '"HYPIR.dataset.paired_parquet.MyDataset"; write one of PairedParquetDataset'),
        ("base_model_path: sd21\n", "nor HYPIR's, which has base_model_path and model_t, nor sd-scripts'"),
        ('{"base_model_path": "sd21", "model_t": 200}', "or HYPIR in JSON is read as it is"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, text: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "a.yaml"
    source.write_text(text, encoding="utf-8")
    assert main([str(source)]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()
