"""What restoration keys say to each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config.problems import PresetError
from tests.config.restoration_presets import load, preset_of

NO_GAN = {"lambda_gan": 0}
ZERO = {f"lambda_{name}": 0 for name in ("l2", "l1", "lpips", "ssim", "gan")}
GOOD_ALONE: dict[str, Any] = {"train_dir": None, "dataroot_gt": ["photos"]}
LISTED: dict[str, Any] = {"train_dir": None, "file_list": "a.parquet"}
VALIDATES = {"val_dir": "val"}


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"train_dir": None}, "train_dir: no pictures to train on; give train_dir, file_list or dataroot_gt"),
        ({"high_order_degradation": True}, "train_dir: has bad pictures, which high_order_degradation would make anew"),
        (GOOD_ALONE, "dataroot_gt: has good pictures alone; write high_order_degradation true, or give pairs"),
        (
            {**LISTED, "file_list": ["a.CSV", "a.txt"]},
            "file_list: a.txt is no list that can be read; write a .parquet or .csv",
        ),
        ({**LISTED, "lq_key": "gt_path"}, "two columns have the same name: gt_path, gt_path, prompt"),
        (ZERO, "lambda_l2: every loss has the weight 0, so nothing would be learnt; give one a weight"),
        (
            {"lambda_schedule": [{"step": 5, **ZERO}]},
            "lambda_schedule: from step 5 on every loss has the weight 0, so nothing would be learnt",
        ),
        (
            {"r1_gamma": 1, "r1_interval": 20, "max_train_steps": 10},
            "r1_interval: the training has 10 steps, so R1 would never be computed; write a smaller number",
        ),
        (
            {"lpips_weights": "https://x/vgg16.pth"},
            "lpips_weights: an address is not downloaded; save the files and write their path",
        ),
        ({"lora_modules": []}, 'lora_modules: needs names of layers, such as ["to_q", "to_k", "to_v"]'),
        (
            {"lora_modules": ["to_q"]},
            "log_grad_modules: conv_out gets no LoRA; write layers that lora_modules names, or log_grad_steps 0",
        ),
        ({"log_grad_modules": []}, 'log_grad_modules: needs names of layers, such as ["conv_out"]'),
        (
            {**ZERO, "lambda_gan": 1, "lambda_gan_warmup_steps": 9},
            "lambda_gan_warmup_steps: lambda_gan begins at 0 and is the only loss, so the first step would have none",
        ),
        ({"output_name": "checkpoint-5"}, "output_name: names that begin with checkpoint- are those of the folders"),
        ({"ema_decay": 1}, "ema_decay: the copy would stay what it is before the first step; write less"),
        ({"opt_kwargs": {"lr": 1e-4}}, "opt_kwargs: lr is no option of it; write lr_G and lr_D as keys of their own"),
        ({**VALIDATES, "degradation_types": ["Rain", "Rain"]}, "degradation_types: Rain is named twice"),
        ({**VALIDATES, "degradation_types": ["a/b"]}, 'degradation_types: "a/b" is no name of a folder in val_dir'),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(tmp_path: Path, keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(PresetError) as caught:
        load(tmp_path, **keys)
    found = [sentence for sentence in caught.value.problems if problem in sentence]
    assert len(found) == 1, caught.value.problems
    assert found[0].startswith(f"{tmp_path / 'mine.json'}:1:")


@pytest.mark.parametrize(
    ("keys", "idle"),
    [
        ({}, set()),
        ({"gt_key": "a", "image_path_prefix": "b"}, {"gt_key", "image_path_prefix"}),
        ({**LISTED, "gt_key": "a", "image_path_prefix": "b"}, set()),
        ({**LISTED, "lq_key": "a", "high_order_degradation": True}, {"lq_key"}),
        ({**LISTED, "train_types": ["Rain"]}, {"train_types"}),
        ({"train_types": ["Rain"], "file_list": ["a.csv", "b.parquet"]}, set()),
        ({"p_empty_prompt": 1, "prompt": "a", "use_filename_as_prompt": True}, {"prompt", "use_filename_as_prompt"}),
        ({"p_empty_prompt": 0.5, "prompt": "a", "use_filename_as_prompt": True}, {"prompt"}),
        ({"jpeg_range": [5, 9], "use_sharpener": False, "stage2_scale": 2, "video_prob": 0.5},
         {"jpeg_range", "use_sharpener", "stage2_scale", "video_prob"}),
        ({**GOOD_ALONE, "high_order_degradation": True, "jpeg_range": [5, 9], "lq_usm_radius_range": [3, 5]},
         {"lq_usm_radius_range"}),
        ({**GOOD_ALONE, "high_order_degradation": True, "lq_usm": True, "lq_usm_radius_range": [3, 5]}, set()),
        ({**LISTED, "high_order_degradation": True, "queue_size": 9, "resize_back": False, "blur_kernel_size": 15},
         {"queue_size", "resize_back", "blur_kernel_size"}),
        ({"lambda_schedule": [{"step": 99, "lambda_l1": 1}], "max_train_steps": 99}, {"lambda_schedule"}),
        ({**NO_GAN, "lr_D": 1e-4, "r1_gamma": 1, "r1_interval": 4, "lambda_gan_warmup_steps": 4,
          "discriminator_backbone": "a"},
         {"lr_D", "r1_gamma", "r1_interval", "lambda_gan_warmup_steps", "discriminator_backbone"}),
        ({**NO_GAN, "lr_D": 1e-4, "lambda_schedule": [{"step": 9, "lambda_gan": 1}]}, set()),
        ({"r1_interval": 4}, {"r1_interval"}),
        ({"r1_interval": 4, "r1_gamma": 1}, set()),
        ({"lambda_lpips": 0, "lpips_weights": "v"}, {"lpips_weights"}),
        ({"lambda_lpips": 0, "lpips_weights": "v", **VALIDATES}, set()),
        ({"log_grad_steps": 0, "log_grad_modules": ["nothing"]}, {"log_grad_modules"}),
        ({"log_grad_modules": ["up_blocks.3.resnets.0.conv1", "0.proj"]}, set()),
        ({"validation_steps": 5, "val_batch_size": 2, "degradation_types": ["Rain"], "num_samples_per_type": 5,
          "val_prompt": "a", "save_best": False},
         {"validation_steps", "val_batch_size", "degradation_types", "num_samples_per_type", "val_prompt",
          "save_best"}),
        ({**VALIDATES, "validation_steps": 5, "degradation_types": ["Rain"]}, set()),
        ({"use_ema": False, "ema_decay": 0.9}, {"ema_decay"}),
        ({"ema_decay": 0, "use_ema": True}, {"use_ema"}),
        ({"checkpointing_steps": 0, "checkpoints_total_limit": 3}, {"checkpoints_total_limit"}),
        ({"resume_from_checkpoint": "c", "resume_ema": False, "swanlab_workspace": "w"},
         {"resume_from_checkpoint", "resume_ema", "swanlab_workspace"}),
        ({"log_with": "none", "logging_dir": "x"}, {"logging_dir"}),
    ],
)  # fmt: skip
def test_a_key_that_does_nothing_is_told(tmp_path: Path, keys: dict[str, Any], idle: set[str]) -> None:
    assert set(load(tmp_path, **keys).inert) == idle


@pytest.mark.parametrize(
    ("keys", "note"),
    [
        (
            {"base_model_path": "stand-in"},
            "base_model_path: stand-in is a tiny network that has learnt nothing: for trying out, not for results",
        ),
        (
            {**ZERO, "lambda_gan": 1},
            "lambda_l2: lambda_gan alone makes pictures that no longer follow the original",
        ),
        (
            {"lambda_schedule": [{"step": 7, **ZERO, "lambda_gan": 1}]},
            "lambda_schedule: from step 7 on lambda_gan alone makes pictures that no longer follow the original",
        ),
        (
            {"lambda_gan_warmup_steps": 9, "max_train_steps": 9},
            "lambda_gan_warmup_steps: the training ends at step 9, so lambda_gan never comes to its whole value",
        ),
    ],
)
def test_what_a_person_would_want_to_know_is_noted(tmp_path: Path, keys: dict[str, Any], note: str) -> None:
    assert load(tmp_path, **keys).notes == (note,)


def test_stand_ins_are_named_by_their_keys(tmp_path: Path) -> None:
    preset = preset_of(
        load(tmp_path, base_model_path="stand-in", discriminator_backbone="stand-in.pt", lpips_weights="stand-in")
    )
    assert preset.stand_ins == {"base_model_path", "lpips_weights"}


def test_a_discriminator_and_lpips_are_there_where_they_count(tmp_path: Path) -> None:
    preset = preset_of(load(tmp_path, lambda_gan=0, lambda_lpips=0, r1_gamma=2))
    assert (preset.has_discriminator, preset.needs_lpips, preset.penalises_gradients) == (False, False, False)
    later = [{"step": 3, "lambda_gan": 1, "lambda_lpips": 1}]
    preset = preset_of(load(tmp_path, lambda_gan=0, lambda_lpips=0, r1_gamma=2, lambda_schedule=later))
    assert (preset.has_discriminator, preset.needs_lpips, preset.penalises_gradients) == (True, True, True)
    preset = preset_of(load(tmp_path, lambda_gan=0, lambda_schedule=later, max_train_steps=3))
    assert preset.has_discriminator  # as the run may be continued with more steps, and then needs its state
    assert preset_of(load(tmp_path, lambda_lpips=0, **VALIDATES)).needs_lpips
    assert [preset_of(load(tmp_path, **keys)).average_decay for keys in ({"use_ema": False}, {"ema_decay": 0.9})] == [
        0, 0.9,
    ]  # fmt: skip
