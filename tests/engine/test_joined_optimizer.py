"""Several optimizers as one: the same numbers as each by itself, state and all."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lora_trainer.engine.joined_optimizer import JoinedOptimizer
from lora_trainer.engine.optimizers import Group, load_optimizer_state, make_optimizer, rates, set_rates


def modules() -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    return nn.Linear(4, 3), nn.Linear(3, 2)


def optimizers(one: nn.Module, two: nn.Module, name: str = "Lion") -> list[torch.optim.Optimizer]:
    first = make_optimizer("AdamW", [Group("unet", 1e-2, dict(one.named_parameters()))], {"weight_decay": 0.1})
    return [first, make_optimizer(name, [Group("text_encoder", 1e-3, dict(two.named_parameters()))], {})]


def train(one: nn.Module, two: nn.Module, step: object, steps: int, start: int = 0) -> None:
    for number in range(start, start + steps):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(number))
        two(one(x)).square().mean().backward()
        for optimizer in step if isinstance(step, list) else [step]:
            set_rates(optimizer, {"unet": 1.0, "text_encoder": 0.5}.__getitem__, number)
            optimizer.step()
            optimizer.zero_grad()


def test_it_steps_as_its_parts_do_each_at_its_rate() -> None:
    apart, joined = modules(), modules()
    train(*apart, optimizers(*apart), 3)
    optimizer = JoinedOptimizer(optimizers(*joined))
    train(*joined, optimizer, 3)
    for one, two in zip(apart, joined, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert rates(optimizer) == {"unet": 1e-2, "text_encoder": 5e-4}
    assert all(weight.grad is None for module in joined for weight in module.parameters())
    assert len(optimizer.state) == 4


def test_its_state_comes_back_to_the_bit() -> None:
    whole, parts = modules(), modules()
    train(*whole, JoinedOptimizer(optimizers(*whole)), 5)
    first = JoinedOptimizer(optimizers(*parts))
    train(*parts, first, 2)
    saved = copy.deepcopy(first.state_dict())
    again = JoinedOptimizer(optimizers(*parts))
    load_optimizer_state(again, saved)
    train(*parts, again, 3, start=2)
    for one, two in zip(whole, parts, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_only_a_schedule_free_part_has_two_modes() -> None:
    assert not hasattr(JoinedOptimizer(optimizers(*modules())), "eval")
    one, two = modules()
    optimizer = JoinedOptimizer(optimizers(one, two, "AdamWScheduleFree"))
    train(one, two, optimizer, 2)
    before = [weight.detach().clone() for weight in two.parameters()]
    optimizer.eval()
    assert any(not torch.equal(a, b) for a, b in zip(before, two.parameters(), strict=True))
    optimizer.train()
    for a, b in zip(before, two.parameters(), strict=True):
        torch.testing.assert_close(a, b.detach())


def test_a_bad_step_is_skipped_on_the_device_where_all_parts_can() -> None:
    one, two = modules()
    plain = JoinedOptimizer(optimizers(one, two))
    assert not plain._step_supports_amp_scaling
    fused = JoinedOptimizer([optimizers(one, two)[0], *optimizers(one, two, "AdamW")[1:]])
    assert fused._step_supports_amp_scaling
    for module in (one, two):
        for weight in module.parameters():
            weight.grad = torch.ones_like(weight)
    before = [weight.detach().clone() for module in (one, two) for weight in module.parameters()]
    fused.grad_scale, fused.found_inf = None, torch.tensor(1.0)
    fused.step()
    assert all(torch.equal(a, b) for a, b in zip(before, (*one.parameters(), *two.parameters()), strict=True))
    fused.found_inf = torch.tensor(0.0)
    fused.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, (*one.parameters(), *two.parameters()), strict=True))


def test_other_parts_are_refused_when_loading() -> None:
    with pytest.raises(ValueError, match="zip"):
        JoinedOptimizer(optimizers(*modules())).load_state_dict({"parts": []})
