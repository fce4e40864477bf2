"""A short LoRA preset for the tests, and how they load variants of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lora_trainer.config.problems import PresetError
from lora_trainer.config.reader import Loaded, load_preset

REQUIRED = {
    "pretrained_model_name_or_path": "base.safetensors",
    "train_data_dir": "data",
    "output_dir": "out",
    "output_name": "mine",
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, object]], Path]:
    """Write a preset with one key per line: the n-th key is in line n + 1, its value after `  "key": `."""

    def write_keys(keys: dict[str, object]) -> Path:
        path = tmp_path / "mine.json"
        path.write_text(json.dumps(keys, indent=2), encoding="utf-8")
        return path

    return write_keys


@pytest.fixture
def load(write: Callable[[dict[str, object]], Path]) -> Callable[..., Loaded]:
    """Load the four required keys and more."""

    def load_keys(overrides: Sequence[str] = (), /, **keys: object) -> Loaded:
        return load_preset(write({**REQUIRED, **keys}), overrides)

    return load_keys


@pytest.fixture
def problems(load: Callable[..., Loaded], tmp_path: Path) -> Callable[..., list[str]]:
    """What is wrong with the four required keys and more, without the path in front."""

    def problems_of(overrides: Sequence[str] = (), /, **keys: object) -> list[str]:
        try:
            load(overrides, **keys)
        except PresetError as error:
            return [problem.removeprefix(f"{tmp_path / 'mine.json'}:") for problem in error.problems]
        return []

    return problems_of
