"""Rounding by chance is right on average, depends on its key alone, and lets bf16 weights learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lora_trainer.engine.fused_step import optimizer_per_weight
from lora_trainer.engine.optimizers import Group, load_optimizer_state, make_optimizer
from lora_trainer.engine.phase import Batch, Losses, Phase
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.step import Stepper
from lora_trainer.engine.stochastic_rounding import float32_step, rounded
from lora_trainer.errors import Refusal


@pytest.mark.parametrize("value", [1.001, -0.3333, 1e-6])
def test_the_mean_is_the_value(value: float) -> None:
    drawn = rounded(torch.full((200_000,), value), 1, 2, "weight").double()
    assert len(drawn.unique()) == 2
    gap = float(drawn.max() - drawn.min())
    assert float(drawn.mean()) == pytest.approx(float(torch.tensor(value)), abs=0.006 * gap)  # about 5 deviations


def test_what_fits_stays() -> None:
    values = torch.tensor([0.0, 1.0, -2.5, float("inf"), float("-inf"), float("nan")])
    assert rounded(values, 0, 0, "w").float().tolist()[:5] == values.tolist()[:5]
    assert rounded(values, 0, 0, "w")[5].isnan()


def test_the_draw_depends_on_its_key_alone() -> None:
    values = torch.linspace(-1, 1, 1000)
    first = rounded(values, 1, 2, "a")
    assert torch.equal(first, rounded(values, 1, 2, "a"))
    for other in ((2, 2, "a"), (1, 3, "a"), (1, 2, "b")):
        assert not torch.equal(first, rounded(values, *other))


def trained(name: str, steps: range, kept: dict | None = None) -> tuple[nn.Parameter, dict]:
    weight = nn.Parameter(kept["weight"] if kept else torch.ones(4000, dtype=torch.bfloat16))
    optimizer = make_optimizer(name, [Group("unet", 1e-4, {"w": weight})], {"weight_decay": 0.0})
    if kept:
        load_optimizer_state(optimizer, kept["optimizer"])
    for step in steps:
        weight.grad = torch.ones_like(weight)
        with float32_step({"w": weight}, 7, step):
            optimizer.step()
    return weight, {"weight": weight.detach().clone(), "optimizer": optimizer.state_dict()}


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_updates_too_small_for_bf16_add_up(name: str) -> None:
    weight, _ = trained(name, range(10))
    assert weight.dtype == torch.bfloat16
    assert float(weight.double().mean()) == pytest.approx(1 - 10 * 1e-4, abs=1.5e-4)  # plain bf16 stays at 1


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_a_stop_changes_nothing(name: str) -> None:
    whole, _ = trained(name, range(6))
    _, kept = trained(name, range(3))
    resumed, _ = trained(name, range(3, 6), kept)
    assert torch.equal(whole, resumed)


def test_a_weight_stays_where_it_lies() -> None:
    weight = nn.Parameter(torch.ones(2, 3, 4, 4, dtype=torch.bfloat16).to(memory_format=torch.channels_last))
    place, strides = weight.data_ptr(), weight.stride()
    weight.grad = torch.ones_like(weight)
    with float32_step({"w": weight}, 7, 0):
        assert weight.dtype == weight.grad.dtype == torch.float32
        weight.data.sub_(0.5)
    assert (weight.data_ptr(), weight.stride(), weight.dtype) == (place, strides, torch.bfloat16)
    assert torch.equal(weight, torch.full_like(weight, 0.5))
    assert weight.grad is None


def loss(module: nn.Module, batch: Batch) -> Losses:
    return Losses((module(batch["inputs"]).float() - batch["target"]).square().mean(1))


def learner(name: str, options: dict[str, Any], seed: int | None, **facts: Any) -> tuple[Phase, Stepper]:
    module = nn.Linear(4, 4000).to(torch.bfloat16)
    nn.init.constant_(module.weight, 0.25)
    nn.init.zeros_(module.bias)
    weights = dict(module.named_parameters())
    make = make_optimizer if facts.pop("whole", False) else optimizer_per_weight
    optimizer = make(name, [Group("unet", 1e-5, weights)], options)
    phase = Phase("unet", module, weights, optimizer, loss, lambda step: 1.0, rounding_seed=seed, **facts)
    return phase, Stepper([phase], Processes(), Precision("bf16", "cpu"))


def micro() -> Batch:
    """Half a step of two pictures: the answer 1 becomes 2."""
    rows = {"inputs": torch.ones(1, 4), "target": torch.full((1, 4000), 2.0)}
    return {**rows, "names": ["a"], "weights": torch.ones(1), "total": 2}


@pytest.mark.parametrize("facts", [{}, {"whole": True}, {"fused": True}, {"max_grad_norm": 0.01}])
def test_a_rate_far_below_the_format_is_learned_from_on_average(facts: dict[str, Any]) -> None:
    passes = [{**micro(), "total": 1}] if facts.get("fused") else [micro(), micro()]
    phase, stepper = learner("AdamW", {"weight_decay": 0.0}, 7, **facts)
    losses = [float(stepper.run(step, passes).values["loss"]) for step in range(40)]
    mean = float(phase.weights["weight"].double().mean())
    assert mean == pytest.approx(0.25 + 40 * 1e-5, abs=4e-5)  # steps of 1e-5 where bf16 knows 0.25 and 0.252
    assert losses[-1] < losses[0]
    still, stepper = learner("AdamW", {"weight_decay": 0.0}, None, whole=True)
    for step in range(40):
        stepper.run(step, [micro(), micro()])
    assert torch.equal(still.weights["weight"], torch.full((4000, 4), 0.25, dtype=torch.bfloat16))


def test_passes_are_one_batch_and_a_nan_moves_nothing() -> None:
    whole, first = learner("Lion", {}, 7)
    parted, second = learner("Lion", {}, 7)
    first.run(0, [{**micro(), "total": 1}])
    second.run(0, [micro(), micro()])
    assert torch.equal(whole.weights["weight"], parted.weights["weight"])
    before = parted.weights["weight"].clone()
    assert float(second.run(1, [micro(), {**micro(), "target": torch.tensor(float("nan"))}]).values["bad"]) == 1
    assert torch.equal(before, parted.weights["weight"])
    assert second.applied == {"unet": 1}


def test_a_step_leaves_a_weight_to_those_who_wait_for_its_gradients() -> None:
    phase, stepper = learner("AdamW", {}, 7)
    weight, heard = phase.weights["weight"].requires_grad_(True), []
    view = weight.view_as(weight)
    assert view.grad_fn is not None
    accumulator = view.grad_fn.next_functions[0][0]
    accumulator.register_hook(lambda *_: heard.append(1))  # as DDP does
    for step in range(2):
        stepper.run(step, [micro(), micro()])
    assert len(heard) == 4


def test_what_does_not_go_with_it() -> None:
    phase, _ = learner("SGD", {}, 7)
    with pytest.raises(Refusal, match="unet: weights in bf16 need passes in bf16; these would be in float32"):
        Stepper([phase], Processes(), Precision("no", "cpu"))
    with pytest.raises(Refusal, match="these would be in fp16"):
        Stepper([phase], Processes(), Precision("fp16", "cpu"))
    with pytest.raises(Refusal, match="a schedule-free optimizer moves its weights outside its steps"):
        learner("AdamWScheduleFree", {}, 7)
