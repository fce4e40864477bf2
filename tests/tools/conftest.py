"""Upscalers of a few kilobytes, and silence."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lora_trainer.models.sr_file import save_network
from lora_trainer.models.sr_networks import build_network


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """`model("compact", 2, num_feat=8)` writes a file of random weights."""

    def write(name: str, scale: int, **options: object) -> Path:
        torch.manual_seed(0)
        network = build_network(name, scale, options)
        path = tmp_path / f"modell ü {name}.safetensors"
        save_network(path, network, network.module.state_dict())
        return path

    return write


@pytest.fixture
def no_console(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process of its own: a training that ran before in this one has left its console."""
    monkeypatch.setattr(logging.getLogger("lora_trainer"), "handlers", [])
