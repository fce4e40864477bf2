"""Tiny base models on disk, each written once per test run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_trainer.models.tiny_models import make_tiny_model

TinyPath = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> TinyPath:
    """`tiny_path("sdxl")` is a diffusers folder, `tiny_path("sdxl", ".safetensors")` and ".ckpt" are files."""
    root = tmp_path_factory.mktemp("tiny models ü")

    def find(kind: str, suffix: str = "") -> Path:
        path = root / f"{kind}{suffix}"
        if not path.exists():
            make_tiny_model(kind, path, single_file=bool(suffix))
        return path

    return find
