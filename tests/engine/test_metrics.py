"""Numbers on their way from the device to the log."""

from __future__ import annotations

import time

import pytest
import torch

from lora_trainer.engine.metrics import Readings, Speed, Window
from lora_trainer.engine.step import MEMBERS, StepResult


def result(loss: float, bad: float = 0.0) -> StepResult:
    values = {"loss": torch.tensor(loss), "grad_norm": torch.tensor(2.0), "bad": torch.tensor(bad)}
    return StepResult(values, 4, lambda: ["a picture"])


def test_a_step_is_read_when_the_next_one_is_under_way() -> None:
    readings = Readings(torch.device("cpu"))
    readings.push(1, result(0.5), None)
    assert readings.pop() == []
    readings.push(2, result(float("nan"), bad=1.0), {"lr/unet": 1e-4})
    (first,) = readings.pop()
    assert (first.step, first.values["loss"], first.finite, first.rates) == (1, 0.5, True, None)
    (second,) = readings.pop(leave=0)
    assert (second.step, second.finite, second.suspects()) == (2, False, ["a picture"])
    assert second.rates == {"lr/unet": 1e-4}


def test_a_window_means_over_its_steps_and_survives_a_stop() -> None:
    readings = Readings(torch.device("cpu"))
    for step, loss in enumerate((1.0, 2.0, 6.0), 1):
        readings.push(step, result(loss), None)
    first, second, third = readings.pop(leave=0)
    window, continued = Window(), Window()
    window.add(first)
    window.add(second)
    continued.load_state_dict(window.state_dict())
    continued.add(third)
    assert continued.take() == {"loss": 3.0, "grad_norm": 2.0}
    assert continued.smoothed == pytest.approx(0.98 * (0.98 * 1 + 0.02 * 2) + 0.02 * 6)
    assert continued.take() == {}


def test_a_part_is_a_mean_over_its_members() -> None:
    """Which a step may not have, and a window neither."""
    window, readings = Window(), Readings(torch.device("cpu"))
    for step, (low, size) in enumerate([(0.5, 0.25), (0.0, 0.0), (1.0, 0.5)]):
        values = {
            "loss": 1.0,
            "band/low": low,
            f"band/low{MEMBERS}": size,
            "band/high": 0.0,
            f"band/high{MEMBERS}": 0.0,
        }
        numbers = {name: torch.tensor(value) for name, value in {**values, "bad": 0.0}.items()}
        readings.push(step, StepResult(numbers, 4, list), None)
    for reading in readings.pop(leave=0):
        window.add(reading)
    assert window.take() == {"loss": 1.0, "band/low": 2.0}


def test_speed_leaves_saving_out_and_counts_to_the_steps_own_time() -> None:
    speed = Speed()
    now = time.perf_counter()
    speed.take(now)
    speed.add(30)
    speed.exclude(4.0)
    assert speed.take(now + 10.0) == pytest.approx(5.0)
    speed.add(8)
    assert speed.take(now + 12.0) == pytest.approx(4.0)
