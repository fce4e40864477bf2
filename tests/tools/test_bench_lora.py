"""The bench of LoRA steps: each way trains, and the arithmetic of the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from tools import bench_lora
from tools.bench_lora import SIZES, WAYS, Setting, flops_of, main, script_step, trainer_step, write_base

SMALL: dict[str, Any] = {
    **SIZES["tiny"][0],
    "vae": {"block_out_channels": [4, 4, 4, 4], "layers_per_block": 1, "norm_num_groups": 2},
    "unet": {**SIZES["tiny"][0]["unet"], "block_out_channels": [32, 64, 64]},
}


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setitem(SIZES, "tiny", (SMALL, 128))  # type: ignore[arg-type]
    write_base("tiny", tmp_path, torch.float32)
    return Setting("tiny", 2, Precision("no", "cpu"), Processes(), tmp_path)


@pytest.mark.parametrize("name", ["trainer", "trainer, layers not fused", "trainer, geglu"])
def test_the_trainer_learns_with_each_lever(setting: Setting, name: str) -> None:
    step = trainer_step(setting, {**(WAYS[name].keys or {}), "unet_lr": 1e-2})
    losses = [float(step()) for _ in range(8)]
    assert all(0 < loss < 3 for loss in losses)
    assert sum(losses[4:]) < sum(losses[:4])


@pytest.mark.parametrize("checkpoints", [True, False])
def test_the_script_trains(setting: Setting, checkpoints: bool) -> None:
    step = script_step(setting, checkpoints)
    assert all(0 < step() < 3 for _ in range(3))


def test_the_products_of_a_step_are_counted() -> None:
    a, b = torch.randn(5, 7), torch.randn(7, 3)
    assert flops_of(lambda: a @ b) == 2 * 5 * 7 * 3


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    seconds = iter([0.5, 0.25] * 3)
    monkeypatch.setattr(bench_lora, "WAYS", {name: WAYS[name] for name in ("script", "trainer")})
    monkeypatch.setattr(bench_lora, "write_base", lambda *_: None)
    monkeypatch.setattr(bench_lora, "script_step", lambda *_: list)
    monkeypatch.setattr(bench_lora, "trainer_step", lambda *_: list)
    monkeypatch.setattr(bench_lora, "flops_of", lambda step: 10**9)
    monkeypatch.setattr(bench_lora, "peak_flops", lambda *_: 1e10)
    monkeypatch.setattr(bench_lora, "seconds_of", lambda step, device: next(seconds))
    assert main(["--size", "tiny", "--batch", "4", "--rounds", "3", "--precision", "no"]) == 0
    lines = capsys.readouterr().out.splitlines()
    script, ours = (json.loads(line) for line in lines[:2])
    assert (script["images_per_second"], script["times"], script["share_of_peak"]) == (8.0, 1.0, 0.2)
    assert (ours["images_per_second"], ours["times"], ours["share_of_peak"]) == (16.0, 2.0, 0.4)
    assert lines[-1].split() == ["trainer", "16.00", "0.2500", "0.2500", "0.2500", "2.00", "40.0%"]
