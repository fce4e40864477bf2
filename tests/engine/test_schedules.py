"""The learning rate over time equals the field's own curves."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import pytest
import torch
from diffusers.optimization import get_piecewise_constant_schedule
from transformers import get_scheduler

from lora_trainer.engine.schedules import Curve, make_schedule, schedule_problems, torch_schedule
from lora_trainer.errors import Refusal


def stepped(scheduler: Any, optimizer: torch.optim.Optimizer, total: int) -> list[float]:
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def dummy(base: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)


def reference(name: str, base: float, warmup: int, total: int, **options: float) -> list[float]:
    optimizer = dummy(base)
    scheduler = get_scheduler(name, optimizer, warmup, total, scheduler_specific_kwargs=options)
    return stepped(scheduler, optimizer, total)


@pytest.mark.parametrize(
    ("name", "theirs", "curve", "options"),
    [
        ("constant", "constant", Curve(12), {}),
        ("constant", "constant_with_warmup", Curve(12, 5), {}),
        ("constant_with_warmup", "constant_with_warmup", Curve(20, 3), {}),
        ("linear", "linear", Curve(17, 4), {}),
        ("cosine", "cosine", Curve(23, 6), {}),
        ("cosine", "cosine", Curve(11), {}),
        ("cosine_with_restarts", "cosine_with_restarts", Curve(30, 3, num_cycles=3), {"num_cycles": 3}),
        ("polynomial", "polynomial", Curve(19, 2, power=2.0, base_rate=3e-4), {"power": 2.0}),
        ("polynomial", "polynomial", Curve(19, power=1.0, base_rate=3e-4), {"power": 1.0}),
        ("adafactor", "constant", Curve(5), {}),
        ("cosine_with_min_lr", "cosine_with_min_lr", Curve(21, 4, min_ratio=0.2), {"min_lr_rate": 0.2}),
        (
            "cosine_with_min_lr", "cosine_with_min_lr", Curve(21, num_cycles=3, min_ratio=0.1),
            {"min_lr_rate": 0.1, "num_cycles": 1.5},
        ),
        ("inverse_sqrt", "inverse_sqrt", Curve(40, 7), {}),
        ("inverse_sqrt", "inverse_sqrt", Curve(40), {}),
        ("inverse_sqrt", "inverse_sqrt", Curve(40, 7, timescale=12), {"timescale": 12}),
        (
            "warmup_stable_decay", "warmup_stable_decay", Curve(30, 5, decay_steps=12, min_ratio=0.1),
            {"num_decay_steps": 12, "min_lr_ratio": 0.1},
        ),
    ],
)  # fmt: skip
def test_every_step_has_the_rate_of_transformers(
    name: str, theirs: str, curve: Curve, options: dict[str, float]
) -> None:
    schedule = make_schedule(name, curve)
    ours = [3e-4 * schedule(step) for step in range(curve.total_steps)]
    expected = reference(theirs, 3e-4, curve.warmup_steps, curve.total_steps, **options)
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("rules", ["1:4,0.1:9,0.01", "0.1:9,1:4,0.5", "0.3"])
def test_piecewise_constant_reads_its_rules_as_diffusers_does(rules: str) -> None:
    schedule = make_schedule("piecewise_constant", Curve(14, step_rules=rules))
    optimizer = dummy(2e-4)
    expected = stepped(get_piecewise_constant_schedule(optimizer, rules), optimizer, 14)
    assert [2e-4 * schedule(step) for step in range(14)] == pytest.approx(expected)


def test_beyond_its_end_a_curve_stays_where_it_ended() -> None:
    assert make_schedule("cosine", Curve(10))(25) == 0.0
    assert make_schedule("cosine_with_restarts", Curve(10, num_cycles=2))(10) == 0.0
    assert make_schedule("polynomial", Curve(10, base_rate=1e-4))(10) == pytest.approx(1e-3)
    assert make_schedule("warmup_stable_decay", Curve(10, decay_steps=3, min_ratio=0.25))(11) == 0.25
    assert make_schedule("cosine_with_min_lr", Curve(10, min_ratio=0.25))(11) == 0.25


TORCH: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("MultiStepLR", {"milestones": [3, 7, 7, 20], "gamma": 0.5}, {}),
    ("StepLR", {"step_size": 4, "gamma": 0.3}, {}),
    ("ConstantLR", {}, {}),
    ("ConstantLR", {"factor": 0.2, "total_iters": 9}, {}),
    ("LinearLR", {}, {}),
    ("LinearLR", {"start_factor": 0.9, "end_factor": 0.1, "total_iters": 17}, {}),
    ("ExponentialLR", {"gamma": 0.93}, {}),
    ("PolynomialLR", {"total_iters": 11, "power": 1.7}, {}),
    ("PolynomialLR", {}, {"total_iters": 40}),
    ("CosineAnnealingLR", {"T_max": 15, "eta_min": 1e-6}, {}),
    ("CosineAnnealingLR", {}, {"T_max": 40}),
    ("CosineAnnealingWarmRestarts", {"T_0": 6, "eta_min": 1e-5}, {}),
    ("CosineAnnealingWarmRestarts", {"T_0": 4, "T_mult": 2}, {}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 3}, {}),
    ("OneCycleLR", {"max_lr": 1e-3}, {"total_steps": 40}),
    ("OneCycleLR", {"max_lr": 1e-3, "total_steps": 60, "anneal_strategy": "linear", "pct_start": 0.2}, {}),
    ("OneCycleLR", {"max_lr": 1e-3, "total_steps": 41, "three_phase": True, "div_factor": 10}, {}),
    ("OneCycleLR", {}, {"total_steps": 40, "max_lr": 2e-4}),
    ("CyclicLR", {"base_lr": 1e-5, "max_lr": 1e-3, "step_size_up": 5}, {}),
    ("CyclicLR", {"base_lr": 1e-5, "max_lr": 1e-3, "step_size_up": 5, "step_size_down": 8, "mode": "triangular2"}, {}),
    ("CyclicLR", {"base_lr": 1e-5, "max_lr": 1e-3, "step_size_up": 7, "mode": "exp_range", "gamma": 0.9}, {}),
]


@pytest.mark.parametrize(("name", "options", "of_the_run"), TORCH, ids=lambda value: str(value))
def test_every_step_has_the_rate_of_pytorch(name: str, options: dict[str, Any], of_the_run: dict[str, Any]) -> None:
    schedule = torch_schedule(name.lower(), options, base_rate=2e-4, total_steps=40)
    optimizer = dummy(2e-4)
    expected = stepped(getattr(torch.optim.lr_scheduler, name)(optimizer, **options, **of_the_run), optimizer, 40)
    assert [2e-4 * schedule(step) for step in range(40)] == pytest.approx(expected, rel=1e-9, abs=1e-18)
    assert schedule_problems(name, options) == []


def test_a_scheduler_that_is_not_in_closed_form_is_stepped() -> None:
    by_path = torch_schedule("torch.optim.lr_scheduler.StepLR", {"step_size": 3, "gamma": 0.5}, 1e-3, 20)
    assert [by_path(step) for step in (10, 0, 3, 2, 11)] == pytest.approx([0.125, 1, 0.5, 1, 0.125])


def test_milestones_count_steps_from_zero_and_the_first_step_has_the_full_rate() -> None:
    schedule = torch_schedule("MultiStepLR", {"milestones": [1000, 2000], "gamma": 0.5}, 2e-4, 3000)
    assert [schedule(step) for step in (0, 999, 1000, 1999, 2000)] == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_the_warmup_rises_to_what_the_scheduler_gives() -> None:
    schedule = torch_schedule("MultiStepLR", {"milestones": [3], "gamma": 0.5}, 2e-4, 10, warmup_steps=4)
    assert [schedule(step) for step in range(6)] == [0.25, 0.5, 0.75, 0.5, 0.5, 0.5]
    assert torch_schedule("ExponentialLR", {"gamma": 0.5}, 1.0, 10, warmup_steps=-1)(0) == 1.0


def test_cosine_restarts_are_those_of_basicsr() -> None:
    """lr = eta_min + w * (base - eta_min) * (1 + cos(pi * t / period)) / 2; a period's last step belongs to it."""
    periods, weights, least, base = [4, 6, 5], [1.0, 0.5, 0.25], 1e-6, 2e-4
    options = {"periods": periods, "restart_weights": weights, "eta_min": least}
    schedule = torch_schedule("CosineAnnealingRestartLR", options, base, 15)
    expected = []
    for index, (period, weight) in enumerate(zip(periods, weights, strict=True)):
        for t in range(0 if index == 0 else 1, period + 1):
            expected.append(least + weight * (base - least) * (1 + math.cos(math.pi * t / period)) / 2)
    assert [base * schedule(step) for step in range(16)] == pytest.approx(expected)
    assert base * schedule(40) == pytest.approx(least)


def test_knee_explores_and_then_falls_on_a_line() -> None:
    schedule = torch_schedule("KneeLR", {"peak_lr": 4e-4, "explore_ratio": 0.5}, 2e-4, 10)
    expected = [4e-4] * 5 + [4e-4 * left / 5 for left in (4, 3, 2, 1, 0)]
    assert [2e-4 * schedule(step) for step in range(10)] == pytest.approx(expected)
    assert schedule(30) == 0.0


def test_warmup_stable_decay() -> None:
    options = {"warmup_iters": 2, "decay_iters": 4, "min_ratio": 0.2, "decay_type": "linear"}
    schedule = torch_schedule("WSD", options, 2e-4, 10)
    assert [schedule(step) for step in range(11)] == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    rooted = torch_schedule("WSD", {"decay_iters": 4, "decay_type": "1-sqrt"}, 2e-4, 10)
    assert rooted(7) == pytest.approx(0.5)


def test_cosine_after_a_warmup() -> None:
    options = {"warmup_iters": 4, "eta_min_ratio": 0.1}
    schedule = torch_schedule("CosineAnnealingWarmupLR", options, 2e-4, 12)
    after = [0.1 + 0.9 * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(9)]
    assert [schedule(step) for step in range(13)] == pytest.approx([0, 0.25, 0.5, 0.75, *after])
    assert schedule(20) == pytest.approx(0.1)


def test_a_run_of_a_million_steps_is_at_its_place_at_once() -> None:
    started = time.perf_counter()
    for name, options, _ in TORCH:
        torch_schedule(name, options, 2e-4, 1_000_000)(999_999)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("MultiStepLr", {"milestone": [1]}, "does not accept milestone; it takes milestones, gamma; did you mean mil"),
        ("MultiStepLR", {}, '"MultiStepLR" needs milestones'),
        ("MultiStepLR", {"milestones": ["a"]}, "milestones must be a list of whole numbers"),
        ("MultiStepLR", {"milestones": 5}, "does not accept {'milestones': 5}"),
        ("MultistepsLR", {}, 'there is no scheduler "MultistepsLR"; there is MultiStepLR,.*did you mean MultiStepLR?'),
        ("ReduceLROnPlateau", {}, "follows a measured value"),
        ("LambdaLR", {}, "takes a Python function"),
        ("StepLR", {"step_size": 0}, "does not accept {'step_size': 0}"),
        ("OneCycleLR", {"cycle_momentum": True}, "cycle_momentum must be false"),
        ("CosineAnnealingRestartLR", {"periods": [5, 5], "restart_weights": [1]}, "2 periods and 1 restart_weights"),
        ("CyclicLR", {"base_lr": 1e-5, "max_lr": 1e-3, "mode": "round"}, "mode must be triangular, triangular2 or"),
        ("nowhere.SomeLR", {}, "does not load: No module named 'nowhere'"),
        ("torch.nn.Linear", {}, 'there is no scheduler "torch.nn.Linear"'),
    ],
)
def test_what_does_not_fit_is_named(name: str, options: dict[str, Any], message: str) -> None:
    problems = "\n".join(schedule_problems(name, options))
    assert re.search(message.replace("?", "[?]").replace("{", "[{]"), problems), problems
    if options != {"step_size": 0}:  # found only where the step is asked for
        with pytest.raises(Refusal):
            torch_schedule(name, options, 1e-4, 10)
