"""An optimizer's moments go over into a run with other options."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from lora_trainer.engine.adopted_optimizer import adopt_state, made_of
from lora_trainer.engine.optimizers import Group, make_optimizer, set_rates


def made(name: str, rate: float, **options: Any) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weight = nn.Parameter(torch.linspace(-1, 1, 64).reshape(8, 8))
    return weight, make_optimizer(name, [Group("unet", rate, {"weight": weight})], options)


def stepped(name: str, rate: float, **options: Any) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weight, optimizer = made(name, rate, **options)
    for number in range(3):
        set_rates(optimizer, lambda group: 1.0, number)
        weight.grad = weight.detach() * (number + 1)
        optimizer.step()
    return weight, optimizer


@pytest.mark.parametrize(
    "name", ["AdamW", "AdamW8bit", "Lion", "Prodigy", "Adafactor", "AdamWScheduleFree", "DAdaptAdam"]
)
def test_with_equal_options_the_next_step_is_the_same(name: str) -> None:
    options = {"scale_parameter": False, "relative_step": False} if name == "Adafactor" else {}
    before, old = stepped(name, 1.0, **options)
    saved, how = copy.deepcopy(old.state_dict()), made_of(old)
    weight, new = made(name, 1.0, **options)
    with torch.no_grad():
        weight.copy_(before)
    assert adopt_state(new, saved, how) == ""
    for each, optimizer in ((before, old), (weight, new)):
        set_rates(optimizer, lambda group: 1.0, 3)
        each.grad = torch.ones(8, 8)
        optimizer.step()
    assert torch.equal(before, weight)


def test_changed_options_and_rates_hold_and_what_the_optimizer_found_stays() -> None:
    _, old = stepped("Prodigy", 1.0, weight_decay=0.0)
    found = old.param_groups[0]["d"]
    assert found > 1e-6
    _, new = made("Prodigy", 0.5, weight_decay=0.25)
    assert adopt_state(new, copy.deepcopy(old.state_dict()), made_of(old)) == ""
    group = new.param_groups[0]
    assert (group["d"], group["weight_decay"], group["base_lr"]) == (found, 0.25, 0.5)


def test_what_does_not_fit_is_left_and_said() -> None:
    _, old = stepped("AdamW", 0.1)
    _, other = made("Lion", 0.1)
    assert adopt_state(other, old.state_dict(), made_of(old)) == "it is Lion and was AdamW"
    assert adopt_state(other, old.state_dict(), {}) == "it is Lion and was another"
    weights = {name: nn.Parameter(torch.zeros(2)) for name in "ab"}
    groups = [Group(name, 0.1, {name: weight}) for name, weight in weights.items()]
    two = make_optimizer("AdamW", groups, {})
    assert adopt_state(two, old.state_dict(), made_of(old)) == "its weights are in other groups"
    assert not two.state


def test_what_it_was_made_of_can_be_saved_and_read_without_unpickling(tmp_path: Any) -> None:
    for name in ("AdamW", "AdamW8bit", "Prodigy", "Adafactor"):
        _, optimizer = made(name, 0.1)
        torch.save(made_of(optimizer), tmp_path / "made.pt")
        assert torch.load(tmp_path / "made.pt", weights_only=True) == made_of(optimizer)
