"""Rounding by chance is right on average, depends on its key alone, and lets bf16 weights learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lora_trainer.engine.optimizers import Group, load_optimizer_state, make_optimizer
from lora_trainer.engine.stochastic_rounding import float32_step, rounded


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
