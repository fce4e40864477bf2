"""What finetune keys say to each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config.problems import PresetError
from lora_trainer.config.reader import Loaded, load_preset

Load = Callable[..., Loaded]

FUSED = {"fused_backward_pass": True, "mixed_precision": "bf16"}
FULL_BF16 = {"full_bf16": True, "mixed_precision": "bf16"}


@pytest.fixture
def load(tmp_path: Path) -> Load:

    def read(**keys: Any) -> Loaded:
        path = tmp_path / "preset.json"
        required = {"trainer": "finetune", "resume_ckpt": "base", "data_root": "input"}
        path.write_text(json.dumps({**required, **keys}), encoding="utf-8")
        return load_preset(path)

    return read


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            {"disable_unet_training": True, "disable_textenc_training": True},
            "disable_unet_training: leaves nothing to train, as disable_textenc_training is on too",
        ),
        ({"timestep_start": 500, "timestep_end": 500}, "timestep_start: 500 must be less than timestep_end, 500"),
        ({"val_split_mode": "manual"}, "val_split_mode: manual needs the folder of the pictures"),
        (
            {"lr_scheduler": "cosine", "lr_warmup_steps": 9, "lr_decay_steps": 9},
            "lr_warmup_steps: 9 leaves nothing of the 9 steps of lr_decay_steps",
        ),
        ({"text_encoder_lr_scale": 0}, "text_encoder_lr_scale: 0 would train nothing"),
        ({"ema_decay_rate": 1}, "ema_decay_rate: 1 would leave the average as it begins"),
        (
            {"rated_dataset": True, "rated_dataset_target_dropout_percent": 0},
            "rated_dataset_target_dropout_percent: 0 would leave no pictures in the end",
        ),
        (
            {**FUSED, "mixed_precision": "fp16"},
            "fused_backward_pass: fp16 decides about a step when all gradients are known; set mixed_precision to bf16",
        ),
        (
            {**FUSED, "grad_accum": 4},
            "fused_backward_pass: gradients of 4 passes cannot be added up when each is used at once; set grad_accum",
        ),
        ({**FUSED, "clip_grad_norm": 1}, "fused_backward_pass: clipping needs the length of all gradients"),
        (
            {**FUSED, "optimizer": "prodigyopt.Prodigy"},
            "prodigyopt.Prodigy estimates one rate from all weights together; turn fused_backward_pass off",
        ),
        (
            {**FULL_BF16, "text_encoder_optimizer": "DAdaptAdam"},
            "text_encoder_optimizer: DAdaptAdam estimates one rate from all weights together; turn full_bf16 off",
        ),
        ({"full_bf16": True}, "full_bf16: needs mixed_precision bf16; the passes would be in fp16"),
        ({**FULL_BF16, "disable_amp": True}, "full_bf16: needs mixed_precision bf16; the passes would be in 32 bits"),
        (
            {**FULL_BF16, "optimizer": "AdamWScheduleFree"},
            "optimizer: AdamWScheduleFree moves its weights between steps too, where bf16 loses it; turn full_bf16 off",
        ),
        (
            {"val_split_mode": "automatic", "extra_manual_datasets": {"val": "x"}},
            "extra_manual_datasets: val is the name of another loss; give it a name of its own",
        ),
        ({"extra_manual_datasets": {"": "x"}}, "extra_manual_datasets: a folder has no name"),
        ({"grad_accum": 10**9}, "grad_accum: found 1000000000; write a whole number from 1 to 4096"),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(load: Load, keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(PresetError) as caught:
        load(**keys)
    (found,) = caught.value.problems
    assert problem in found
    assert "preset.json:1:" in found


@pytest.mark.parametrize(
    ("keys", "idle"),
    [
        ({"lr_decay_steps": 9, "lr_warmup_steps": 2}, {"lr_decay_steps", "lr_warmup_steps"}),
        ({"lr_decay_steps": 9, "text_encoder_lr_scheduler": "cosine"}, set()),
        (
            {"disable_textenc_training": True, "text_encoder_lr": 1e-6, "freeze_embeddings": True},
            {"text_encoder_lr", "freeze_embeddings"},
        ),
        ({"unfreeze_last_n_layers": 2, "freeze_embeddings": True}, {"freeze_embeddings"}),
        ({"ema_update_interval": 5, "ema_device": "cuda"}, {"ema_update_interval", "ema_device"}),
        ({"ema_decay_rate": 0.99, "ema_strength_target": 0.1, "ema_update_interval": 5}, {"ema_decay_rate"}),
        ({"disable_amp": True, "mixed_precision": "bf16"}, {"mixed_precision"}),
        ({"cache_latents": True, "crop_jitter": 0.01}, {"crop_jitter"}),
        ({"no_save_ckpt": True, "save_ckpt_dir": "x", "save_full_precision": True},
         {"save_ckpt_dir"}),
        ({"scale_lr": True, "optimizer": "Prodigy", "text_encoder_lr_scale": 0.5},
         {"scale_lr", "text_encoder_lr_scale"}),
        ({"scale_lr": True, "optimizer": "Prodigy", "text_encoder_optimizer": "AdamW"}, set()),
        (
            {
                "disable_unet_training": True, "optimizer": "AdamW", "optimizer_args": "weight_decay=1",
                "lr_scheduler": "cosine", "lr_decay_steps": 9, "lr_warmup_steps": 1, "text_encoder_optimizer": "Lion",
                "text_encoder_lr_scheduler": "linear", "text_encoder_lr_decay_steps": 9,
                "text_encoder_lr_warmup_steps": 0,
            },
            {"optimizer", "optimizer_args", "lr_scheduler", "lr_decay_steps", "lr_warmup_steps"},
        ),
        ({"disable_unet_training": True, "optimizer": "AdamW", "optimizer_args": "weight_decay=1"}, set()),
        ({"save_ckpts_from_n_epochs": 3}, {"save_ckpts_from_n_epochs"}),
        ({"sample_steps": 10, "ema_decay_rate": 0.99, "ema_sample_ema_model": True},
         {"sample_steps", "ema_sample_ema_model"}),
        ({"val_every_n_epochs": 2, "val_seed": 3}, {"val_every_n_epochs", "val_seed"}),
        ({"val_split_mode": "automatic", "val_every_n_epochs": 2, "manual_data_root": "x"}, {"manual_data_root"}),
        ({"validate_training": False, "val_split_mode": "automatic"}, {"val_split_mode"}),
        ({"rated_dataset_target_dropout_percent": 20}, {"rated_dataset_target_dropout_percent"}),
        ({"gpuid": 1, "train_sampler": "ddim", "save_optimizer": True}, {"gpuid", "train_sampler", "save_optimizer"}),
        ({"disable_unet_training": True, "lr": 1e-6, "text_encoder_lr": 1e-6}, {"lr"}),
        ({"log_with": "none", "logging_dir": "x"}, {"logging_dir"}),
        ({"text_encoder_lr": 1e-6, "text_encoder_lr_scale": 0.5}, {"text_encoder_lr_scale"}),
        ({**FUSED, **FULL_BF16}, set()),
        ({**FUSED, "mixed_precision": "no", "optimizer": "AdamWScheduleFree"}, set()),
    ],
)  # fmt: skip
def test_a_key_that_does_nothing_is_told(load: Load, keys: dict[str, Any], idle: set[str]) -> None:
    assert set(load(**keys).inert) == idle


@pytest.mark.parametrize(
    ("keys", "note"),
    [
        ({"cond_dropout": 0.3}, "cond_dropout: 0.3 is much: the model may learn the pictures without words"),
        ({"lr": 2e-6, "optimizer": "Prodigy"}, "lr: 2e-06 is read as 1.0: the optimizer finds the rate itself"),
        ({"keep_tags": 2}, "keep_tags: read only for pictures and folders that turn shuffle_tags on by themselves"),
        ({"attn_type": "slice"}, "attn_type: PyTorch's sdp is used; it saves the same memory"),
        (
            {**FULL_BF16, "save_full_precision": True},
            "save_full_precision: the trained weights are bf16: the files are twice as large and hold nothing more",
        ),
        ({"seed": 0}, "seed: 0 draws a new seed for each run"),
    ],
)
def test_what_a_person_would_want_to_know_is_noted(load: Load, keys: dict[str, Any], note: str) -> None:
    assert note in load(**keys).notes
