"""Steps within the backward pass give the numbers of plain ones, hold few gradients, and let no NaN in."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lora_trainer.engine.fused_step import FusedStep, fused_problems, optimizer_per_weight
from lora_trainer.engine.joined_optimizer import JoinedOptimizer
from lora_trainer.engine.loop import Loop
from lora_trainer.engine.optimizers import Group, make_optimizer, rates, set_rates
from lora_trainer.engine.phase import Batch, Losses, Phase
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.resume import find_start
from lora_trainer.engine.signals import Stopped, StopRequest
from lora_trainer.engine.step import Stepper, StepResult
from lora_trainer.errors import Refusal
from tests.engine.small_run import Small, settings, small

INPUTS = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
FIXED = {"relative_step": False, "scale_parameter": False, "warmup_init": False}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("AdamW", {}), ("AdamW", {"foreach": False}), ("AdamW8bit", {}), ("Lion", {}), ("Lion8bit", {}),
    ("Adafactor", FIXED), ("Adafactor", {}), ("SGD", {}), ("SGDNesterov", {}),
]  # fmt: skip


def loss(module: nn.Module, batch: Batch) -> Losses:
    return Losses(module(batch["inputs"]).float().square().mean(1))


def phase(name: str, options: dict[str, Any], fused: bool, dtype: torch.dtype = torch.float32, **facts: Any) -> Phase:
    torch.manual_seed(1)
    module = nn.Sequential(*(nn.Linear(6, 6) for _ in range(4))).to(dtype)
    weights = dict(module.named_parameters())
    make = optimizer_per_weight if fused or facts else make_optimizer
    optimizer = make(name, [Group("unet", 1e-2, weights)], options)
    return Phase("unet", module, weights, optimizer, loss, lambda step: 1.0 / (1 + step), fused=fused, **facts)


def stepper(one: Phase, precision: str = "no") -> Stepper:
    return Stepper([one], Processes(), Precision(precision, "cpu"))


def micro(factor: float = 1.0) -> Batch:
    return {"inputs": INPUTS * factor, "names": ["a"] * 8, "weights": torch.ones(8), "total": 8}


def run(one: Phase, steps: int, precision: str = "no") -> list[StepResult]:
    runner = stepper(one, precision)
    return [runner.run(step, [micro()]) for step in range(steps)]


def test_weights_go_when_their_training_is_over() -> None:
    """A run may have a stage after this one, and wants its memory."""
    one = phase("AdamW", {}, True)
    run(one, 1)
    weight = weakref.ref(one.weights["0.weight"])
    assert weight() is not None
    del one
    gc.collect()
    assert weight() is None


@pytest.mark.parametrize(("name", "options"), [*CASES, ("AdamWScheduleFree", {})])
def test_the_numbers_are_those_of_plain_steps(name: str, options: dict[str, Any]) -> None:
    plain, fused = phase(name, options, False), phase(name, options, True)
    before = [weight.clone() for weight in plain.weights.values()]
    theirs, ours = run(plain, 4), run(fused, 4)
    for one, two in zip(theirs, ours, strict=True):
        torch.testing.assert_close(one.values, two.values, rtol=1e-6, atol=0)
    for one, two in zip(plain.weights.values(), fused.weights.values(), strict=True):
        assert torch.equal(one, two)
    assert not any(torch.equal(one, two) for one, two in zip(plain.weights.values(), before, strict=True))
    assert rates(plain.optimizer) == pytest.approx(rates(fused.optimizer))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_rounded_numbers_are_those_of_plain_rounded_steps(name: str, options: dict[str, Any]) -> None:
    plain = phase(name, options, False, torch.bfloat16, rounding_seed=3)
    fused = phase(name, options, True, torch.bfloat16, rounding_seed=3)
    run(plain, 4, "bf16")
    run(fused, 4, "bf16")
    for one, two in zip(plain.weights.values(), fused.weights.values(), strict=True):
        assert one.dtype == two.dtype == torch.bfloat16
        assert torch.equal(one, two)


@pytest.mark.parametrize("seed", [None, 3])
def test_one_gradient_is_there_at_a_time(seed: int | None) -> None:
    one = phase("AdamW", {}, True, torch.float32 if seed is None else torch.bfloat16, rounding_seed=seed)
    runner = stepper(one, "no" if seed is None else "bf16")
    seen = []
    for group in one.optimizer.parts:
        step = group.step

        def watched(*given: Any, step: Any = step) -> Any:
            wide = sum(weight.dtype == torch.float32 for weight in one.weights.values())
            seen.append((sum(weight.grad is not None for weight in one.weights.values()), wide))
            return step(*given)

        group.step = watched  # type: ignore[method-assign]
    runner.run(0, [micro()])
    assert seen == [(1, 8 if seed is None else 1)] * 8
    assert all(weight.grad is None for weight in one.weights.values())


def everything(one: Phase) -> list[torch.Tensor]:
    state = [value for each in one.optimizer.state.values() for value in each.values() if torch.is_tensor(value)]
    return [tensor.detach().clone() for tensor in (*one.weights.values(), *state)]


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_nan_in_the_loss_moves_nothing(name: str, options: dict[str, Any], seed: int | None) -> None:
    one = phase(name, options, True, torch.float32 if seed is None else torch.bfloat16, rounding_seed=seed)
    runner = stepper(one, "no" if seed is None else "bf16")
    assert float(runner.run(0, [micro()]).values["bad"]) == 0
    before = everything(one)
    result = runner.run(1, [micro(float("nan"))])
    assert float(result.values["bad"]) == 1
    assert result.suspects() == ["a"] * 8
    assert all(torch.equal(old, new) for old, new in zip(before, everything(one), strict=True))
    assert float(runner.run(2, [micro()]).values["bad"]) == 0


@pytest.mark.parametrize("name", ["AdamW", "Lion"])
def test_a_nan_in_a_gradient_stops_what_follows(name: str) -> None:
    one = phase(name, {}, True)
    runner = stepper(one)
    runner.run(0, [micro()])
    before = {name: weight.clone() for name, weight in one.weights.items()}
    one.module[1].register_full_backward_hook(lambda *_: (torch.full((8, 6), float("nan")),))
    result = runner.run(1, [micro()])
    assert float(result.values["bad"]) == 1
    assert torch.isfinite(result.values["loss"])
    moved = {name for name, weight in one.weights.items() if not torch.equal(weight, before[name])}
    assert moved == {"1.weight", "1.bias", "2.weight", "2.bias", "3.weight", "3.bias"}
    assert all(weight.isfinite().all() for weight in one.weights.values())


def test_the_schedule_and_the_end_of_a_group_are_kept() -> None:
    one = phase("SGD", {}, True)
    weights = dict(one.weights)
    first = {name: weights.pop(name) for name in list(weights)[:2]}
    groups = [Group("unet", 1e-2, weights), Group("text", 1e-3, first, until=1)]
    ending = dataclasses.replace(one, optimizer=optimizer_per_weight("SGD", groups, {}))
    runner = stepper(ending)
    runner.run(0, [micro()])
    assert rates(ending.optimizer) == {"unet": 1e-2, "text": 1e-3}
    kept = {name: weight.clone() for name, weight in ending.weights.items()}
    runner.run(1, [micro()])
    assert rates(ending.optimizer) == {"unet": 5e-3, "text": 0}
    still = {name for name, weight in ending.weights.items() if torch.equal(weight, kept[name])}
    assert still == set(first)
    assert runner.applied == {"unet": 2}


def test_hundreds_of_groups_ask_for_one_factor_of_each_name() -> None:
    weights = {f"w{number}": nn.Parameter(torch.zeros(2)) for number in range(300)}
    joined = optimizer_per_weight("Lion", [Group("unet", 1e-2, weights)], {})
    asked: list[str] = []
    set_rates(joined, lambda name: asked.append(name) or 0.5, 0)  # type: ignore[func-returns-value]
    assert asked == ["unet"]
    assert rates(joined) == {"unet": 5e-3}


def test_a_joined_optimizer_of_joined_ones_is_taken_apart() -> None:
    one, other = phase("Lion", {}, True), phase("Lion", {}, True)
    weights = list(one.weights.items())
    parts = [optimizer_per_weight("Lion", [Group("unet", 1e-2, dict(some))], {}) for some in (weights[:3], weights[3:])]
    run(dataclasses.replace(one, optimizer=JoinedOptimizer(parts)), 2)
    run(other, 2)
    assert all(torch.equal(a, b) for a, b in zip(one.weights.values(), other.weights.values(), strict=True))


def trainer(name: str, options: dict[str, Any], seed: int | None, **facts: Any) -> Small:
    found = small(**facts)
    found.layer.to(torch.float32 if seed is None else torch.bfloat16)
    (plain,) = found.phases
    optimizer = optimizer_per_weight(name, [Group("layer", 0.05, plain.weights)], options)

    def wide(module: nn.Module, batch: Batch) -> Losses:
        return Losses((module(batch["inputs"]) - batch["inputs"][:, :2]).float().square().mean(1))

    changes = {"max_grad_norm": 0.0, "fused": True, "rounding_seed": seed, "loss": wide}
    found.phases = [dataclasses.replace(plain, optimizer=optimizer, **changes)]
    return found


def loop(trained: Small, out: Path, stop: StopRequest, precision: str) -> bytes:
    chosen = settings(out)
    found = find_start(chosen.folder, chosen.fingerprint, trained.total_steps, False)
    path = Loop(trained, chosen, Processes(), Precision(precision, "cpu"), stop).run(found)
    assert path is not None
    return path.read_bytes()


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_stop_changes_nothing(tmp_path: Path, name: str, options: dict[str, Any], seed: int | None) -> None:
    precision = "no" if seed is None else "bf16"
    whole = loop(trainer(name, options, seed), tmp_path / "whole", StopRequest(), precision)
    stop = StopRequest()

    def stopping(step: int) -> None:
        if step == 4:
            stop.signal = 15

    with pytest.raises(Stopped):
        loop(trainer(name, options, seed, after=stopping), tmp_path / "parted", stop, precision)
    assert loop(trainer(name, options, seed), tmp_path / "parted", StopRequest(), precision) == whole


def test_what_does_not_go_with_it() -> None:
    assert fused_problems(1, 0.0, 1, "bf16") == []
    assert len(fused_problems(4, 1.0, 2, "fp16")) == 4
    assert "4 passes" in fused_problems(4, 0.0, 1, "no")[0]
    with pytest.raises(Refusal, match="unet: clipping needs the norm of all gradients"):
        stepper(dataclasses.replace(phase("SGD", {}, True), max_grad_norm=1.0))
    with pytest.raises(Refusal, match="unet: fp16 decides about a step"):
        stepper(phase("SGD", {}, True), "fp16")
    with pytest.raises(Refusal, match="gradients of 2 passes cannot be added up"):
        stepper(phase("SGD", {}, True)).run(0, [micro(), micro()])
    with pytest.raises(ValueError, match="optimizer_per_weight"):
        FusedStep(phase("SGD", {}, True).weights, phase("SGD", {}, False).optimizer)


@pytest.mark.parametrize("name", ["Prodigy", "DAdaptAdam", "prodigyopt.Prodigy"])
def test_one_estimate_for_all_weights_is_refused(name: str) -> None:
    with pytest.raises(Refusal, match=f'"{name}" estimates one rate from all weights together'):
        phase(name, {}, True)
