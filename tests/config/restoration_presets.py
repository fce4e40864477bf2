"""HYPIR's own file as a preset, and how the tests load variants of a short one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from lora_trainer.config.reader import Loaded, load_preset
from lora_trainer.config.restoration import RestorationPreset

REQUIRED = {"base_model_path": "sd21", "model_t": 200, "output_dir": "out", "train_dir": "pairs"}

GUIDE: dict[str, Any] = {  # sd2_finetune_5k_improved, as its YAML is read
    "output_dir": "./results",
    "data_config": {
        "train": {
            "batch_size": 4,
            "dataloader_num_workers": 4,
            "dataset": {
                "target": "HYPIR.dataset.paired_parquet.PairedParquetDataset",
                "params": {
                    "file_meta": {
                        "file_list": "custom_5k_imp.parquet",
                        "lq_key": "lq_path",
                        "gt_key": "gt_path",
                        "prompt_key": "prompt",
                    },
                    "out_size": 512,
                    "crop_type": "none",
                    "use_hflip": True,
                    "use_rot": True,
                    "return_file_name": False,
                },
            },
            "batch_transform": {
                "target": "HYPIR.dataset.batch_transform.IdentityBatchTransform",
                "params": {"hq_key": "GT", "extra_keys": ["LQ", "txt"]},
            },
        },
        "val": {
            "val_dir": "/data/AIO/Val",
            "degradation_types": ["Blur", "Haze", "Lowlight", "Rain", "Snow"],
            "batch_size": 1,
            "num_samples_per_type": None,
        },
    },
    "base_model_type": "sd2",
    "base_model_path": "stabilityai/stable-diffusion-2-1-base",
    "model_t": 200,
    "coeff_t": 200,
    "lora_rank": 256,
    "lora_modules": ["to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_shortcut", "conv_out",
                     "proj_in", "proj_out", "ff.net.2", "ff.net.0.proj"],
    "use_ema": True,
    "ema_decay": 0.999,
    "resume_ema": True,
    "lambda_gan": 0.3,
    "lambda_lpips": 3,
    "lambda_l2": 2.0,
    "lambda_l1": 2.0,
    "lambda_ssim": 1.0,
    "lr_G": 2e-5,
    "lr_D": 5e-6,
    "optimizer_type": "adam",
    "opt_kwargs": {"betas": [0.9, 0.999], "weight_decay": 1e-4},
    "mixed_precision": "bf16",
    "seed": 231,
    "max_train_steps": 50000,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": True,
    "max_grad_norm": 1.0,
    "logging_dir": "logs",
    "report_to": "swanlab",
    "swanlab_project": "HYPIR",
    "checkpointing_steps": 500,
    "checkpoints_total_limit": 2,
    "resume_from_checkpoint": None,
    "log_image_steps": 100,
    "log_grad_steps": 100,
    "log_grad_modules": ["conv_out"],
    "validation_steps": 500,
}  # fmt: skip


def load(folder: Path, *overrides: str, **keys: Any) -> Loaded:
    """Load the keys that must be there and more; a key that is None is left out."""
    given = {key: value for key, value in {**REQUIRED, **keys}.items() if value is not None}
    return load_written(folder / "mine.json", given, *overrides)


def load_written(path: Path, keys: Mapping[str, Any], *overrides: str) -> Loaded:
    path.write_text(json.dumps(keys), encoding="utf-8")
    return load_preset(path, overrides)


def preset_of(loaded: Loaded) -> RestorationPreset:
    return cast(RestorationPreset, loaded.preset)
