"""Steps within the backward pass give the numbers of plain ones, hold few gradients, and let no NaN in."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lora_trainer.engine.fused_step import FusedStep, fused_problems, optimizer_per_weight
from lora_trainer.engine.optimizers import Group, load_optimizer_state, make_optimizer

INPUTS = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(*(nn.Linear(6, 6) for _ in range(4)))


def fused(name: str, options: dict, kept: dict | None = None) -> tuple:
    module = network()
    weights = dict(module.named_parameters())
    optimizer = optimizer_per_weight(name, [Group("unet", 1e-2, weights)], options)
    if kept:
        module.load_state_dict(kept["module"])
        load_optimizer_state(optimizer, kept["optimizer"])
    return module, optimizer, FusedStep(weights, optimizer)


CASES = [("adamw", {}), ("adamw", {"foreach": False}), ("lion", {}), ("sgd", {})]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_numbers_are_those_of_plain_steps(name: str, options: dict) -> None:
    plain = network()
    whole = make_optimizer(name, [Group("unet", 1e-2, dict(plain.named_parameters()))], options)
    module, _, steps = fused(name, options)
    for _ in range(4):
        plain(INPUTS).square().mean().backward()
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in plain.parameters()])
        whole.step()
        whole.zero_grad()
        module(INPUTS).square().mean().backward()
        ours, bad = steps.finish()
        torch.testing.assert_close(ours, norm)
        assert not bad
    for ours, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0 if options else 1e-6, atol=0 if options else 1e-7)


def test_one_gradient_is_there_at_a_time() -> None:
    module, _, _ = fused("adamw", {})
    alive = []
    for weight in module.parameters():
        weight.register_post_accumulate_grad_hook(
            lambda _: alive.append(sum(each.grad is not None for each in module.parameters()))
        )
    module(INPUTS).square().mean().backward()
    assert max(alive) <= 1
    assert all(weight.grad is None for weight in module.parameters())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_nan_moves_nothing(name: str, options: dict) -> None:
    module, optimizer, steps = fused(name, options)
    module(INPUTS).square().mean().backward()
    steps.finish()
    state = [v for each in optimizer.state.values() for v in each.values() if torch.is_tensor(v)]
    before = [tensor.detach().clone() for tensor in (*module.parameters(), *state)]
    module(INPUTS * float("nan")).square().mean().backward()
    assert steps.finish()[1] == 1
    state = [v for each in optimizer.state.values() for v in each.values() if torch.is_tensor(v)]
    assert all(torch.equal(a, b) for a, b in zip(before, (*module.parameters(), *state), strict=True))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_stop_changes_nothing(name: str, options: dict) -> None:
    module, optimizer, _ = fused(name, options)
    for step in range(4):
        if step == 2:
            kept = {"module": {k: v.clone() for k, v in module.state_dict().items()}}
            again, _, _ = fused(name, options, {**kept, "optimizer": optimizer.state_dict()})
        module(INPUTS).square().mean().backward()
    for _ in range(2):
        again(INPUTS).square().mean().backward()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))


def test_what_does_not_go_with_it() -> None:
    assert fused_problems(1, 0.0, 1, "bf16") == []
    assert len(fused_problems(4, 1.0, 2, "fp16")) == 4
    assert "4 passes" in fused_problems(4, 0.0, 1, "no")[0]
