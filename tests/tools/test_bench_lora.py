"""The bench of LoRA steps: each way trains, and all begin with the same loss."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tools import bench_lora
from tools.bench_lora import WAYS, Way, main, open_trainer, open_way
from tools.benches.lines import machine_of
from tools.benches.measuring import Course, course_of
from tools.benches.random_sdxl import SIZES, Setting, setting_of

pytestmark = pytest.mark.usefixtures("no_console")

SMALL: dict[str, Any] = {
    **SIZES["tiny"][0],
    "vae": {"block_out_channels": [4, 4, 4, 4], "layers_per_block": 1, "norm_num_groups": 2},
    "unet": {**SIZES["tiny"][0]["unet"], "block_out_channels": [32, 64, 64]},
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "tiny", (SMALL, 64))  # type: ignore[arg-type]
    monkeypatch.setattr("tools.benches.measuring.give_back", lambda: None)  # which takes a second


@pytest.fixture
def setting(small: None) -> Iterator[Setting]:
    parser = bench_lora.parser_of("bench_lora", "", SIZES, batch=2, rounds=1)
    with setting_of("tiny", 2, machine_of(parser.parse_args([])), torch.float32) as found:
        yield found


def run(course: Course, steps: int) -> list[Any]:
    return [course.step(course.data()) for _ in range(steps)]


@pytest.mark.parametrize("name", ["trainer", "trainer, layers not fused", "trainer, geglu"])
def test_the_trainer_learns_with_each_lever(setting: Setting, name: str) -> None:
    trainer = open_trainer(setting, {**(WAYS[name].keys or {}), "unet_lr": 1e-2})
    course = course_of(trainer, setting.machine.processes, setting.machine.precision)
    losses = [course.first["loss"], *(float(values["loss"]) for values in run(course, 7))]
    assert all(0 < loss < 3 for loss in losses)
    assert sum(losses[4:]) < sum(losses[:4])


def test_the_script_trains_without_checkpointing(setting: Setting) -> None:
    course = open_way(setting, Way(checkpoints=False))
    assert all(0 < values["loss"] < 3 for values in run(course, 2))


def test_the_command_measures_ways_that_begin_with_the_same_loss(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_lora, "TOLERANCE", 1e-5)
    asked = ["--way", "trainer, checkpointing", "--batch", "2", "--rounds", "2", "--precision", "no", "--device", "cpu"]
    assert main(asked) == 0
    script, ours, told, _, *table = capsys.readouterr().out.splitlines()
    found = [json.loads(line) for line in (script, ours)]
    assert [(row["bench"], row["way"]) for row in found] == [("lora", "script"), ("lora", "trainer, checkpointing")]
    assert all(row["least"] <= row["seconds"] <= row["most"] and row["host_ms"] > 0 for row in found)
    assert all(0 < row["share_of_peak"] < 1 for row in found)
    assert told.startswith("LoRA, tiny, batch 2, no, cpu: 0.0011 TFLOP a step")
    assert [line.split()[0] for line in table] == ["script", "trainer,"]
