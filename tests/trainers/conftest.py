"""What the tests of whole trainings share: a fine-tuning of seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def write_finetune(tmp_path: Path, photos: Path, tiny_path: Callable[..., Path]) -> Callable[..., Path]:
    """`write_finetune(kind="sd15", suffix=".safetensors", key=value, ...)` writes a quick preset of four photographs
    in two shapes and gives its path."""

    def write(kind: str = "sd15", suffix: str = ".safetensors", **keys: Any) -> Path:
        preset: dict[str, Any] = {
            "trainer": "finetune",
            "resume_ckpt": str(tiny_path(kind, suffix)),
            "data_root": str(photos),
            "output_dir": str(tmp_path / "out put"),
            "output_name": "tiny",
            "resolution": 64,
            "lr": 1e-3,
            "optimizer": "AdamW",
            "mixed_precision": "no",
            "batch_size": 2,
            "max_epochs": 2,
            "ckpt_every_n_minutes": 0,
            "log_step": 1,
            "log_with": "none",
            **keys,
        }
        path = tmp_path / "finetune.json"
        path.write_text(json.dumps(preset), encoding="utf-8")
        return path

    return write
