"""What an optimizer is said to remember is what it remembers."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from lora_trainer.engine import optimizer_memory
from lora_trainer.engine.optimizer_memory import state_bytes
from lora_trainer.engine.optimizers import Group, make_optimizer, optimizer_names

SHAPES = [(160, 80), (80,), (16, 32, 3, 3), (16, 32, 3, 3), (8, 4, 1, 1)]


def really(name: str, options: dict[str, Any], dtype: torch.dtype) -> int:
    weights = {str(number): nn.Parameter(torch.randn(shape).to(dtype)) for number, shape in enumerate(SHAPES)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = make_optimizer(name, [Group("unet", 1e-4, weights)], options)
        for _ in range(2):
            for weight in weights.values():
                weight.grad = torch.randn_like(weight)
            optimizer.step()
    found: dict[int, torch.Tensor] = {}
    optimizer_memory._collect(list(optimizer.state.values()), found)
    return sum(tensor.numel() * tensor.element_size() for tensor in found.values())


@pytest.mark.parametrize("name", optimizer_names())
def test_it_is_what_the_optimizer_remembers(name: str) -> None:
    ours = state_bytes(name, {}, [(shape, torch.float32) for shape in SHAPES])
    colours = 4 * 2 * 1024 if "8bit" in name else 0  # the tables of 8-bit numbers, which one optimizer has once
    assert abs(ours - really(name, {}, torch.float32)) <= colours


@pytest.mark.parametrize(
    ("name", "options"), [("AdamW", {}), ("Adafactor", {"relative_step": False}), ("SGD", {"momentum": 0.9})]
)
def test_formats_and_options_count(name: str, options: dict[str, Any]) -> None:
    found = state_bytes(name, options, [(shape, torch.bfloat16) for shape in SHAPES])
    assert found == really(name, options, torch.bfloat16)


def test_a_large_weight_is_not_really_made(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = state_bytes("Adafactor", {}, [((160, 80), torch.float32)])
    monkeypatch.setattr(optimizer_memory, "FEW", 1000)
    made: list[tuple[int, ...]] = []
    stepped = optimizer_memory._stepped
    monkeypatch.setattr(
        optimizer_memory,
        "_stepped",
        lambda name, options, shape, dtype, device: made.append(shape) or stepped(name, options, shape, dtype, device),
    )
    assert state_bytes("Prodigy", {}, [((160, 80), torch.float32)]) == 160 * 80 * 16
    assert made == [(160, 80), (12, 80)]
    assert state_bytes("Adafactor", {}, [((160, 80), torch.float32)]) == pytest.approx(whole, abs=5000)
