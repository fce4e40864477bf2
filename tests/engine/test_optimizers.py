"""Optimizers by name, and their state restored to the bit."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

from lora_trainer.engine.optimizers import Group, load_optimizer_state, make_optimizer, rates, set_rates
from lora_trainer.errors import Refusal

CASES: list[tuple[str, dict[str, Any]]] = [
    ("AdamW", {}),
    ("AdamW8bit", {"min_8bit_size": 1}),
    ("Lion", {}),
    ("Lion8bit", {"min_8bit_size": 1}),
    ("Adafactor", {}),
    ("Adafactor", {"relative_step": False, "scale_parameter": False}),
    ("Prodigy", {"d0": 0.01}),
]


def weights(dtype: torch.dtype) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
        for name, shape in (("down", (4, 40)), ("up", (40, 4)))
    }


def run(optimizer: torch.optim.Optimizer, trained: dict[str, nn.Parameter], steps: range) -> None:
    for step in steps:
        for index, weight in enumerate(trained.values()):
            generator = torch.Generator().manual_seed(100 * step + index)
            weight.grad = torch.randn(weight.shape, generator=generator).to(weight.dtype)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n} {sorted(o)}" for n, o in CASES])
def test_a_continued_optimizer_takes_the_steps_of_an_undisturbed_one(
    name: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    whole, parted = weights(dtype), weights(dtype)
    rate = 1.0 if name == "Prodigy" else 0.01
    undisturbed = make_optimizer(name, [Group("all", rate, whole)], options)
    run(undisturbed, whole, range(7))
    first = make_optimizer(name, [Group("all", rate, parted)], options)
    run(first, parted, range(3))
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    saved = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    second = make_optimizer(name, [Group("all", rate, parted)], options)
    load_optimizer_state(second, saved)
    run(second, parted, range(3, 7))
    start = weights(dtype)
    for key in whole:
        assert not torch.equal(whole[key], start[key])
        assert torch.equal(whole[key], parted[key])


def test_rates_follow_the_schedule_group_by_group() -> None:
    trained = weights(torch.float32)
    groups = [Group("unet", 1e-3, {"down": trained["down"]}), Group("text_encoder", 1e-4, {"up": trained["up"]})]
    optimizer = make_optimizer("adamw", groups, {})
    set_rates(optimizer, 0.5)
    assert rates(optimizer) == {"unet": 5e-4, "text_encoder": 5e-5}
    set_rates(optimizer, 1.0)
    assert rates(optimizer) == {"unet": 1e-3, "text_encoder": 1e-4}


def test_rates_of_those_that_find_their_own() -> None:
    trained = weights(torch.float32)
    adafactor = make_optimizer("Adafactor", [Group("all", 1.0, trained)], {})
    assert rates(adafactor) == {"all": 0.0}
    run(adafactor, trained, range(2))
    assert 0 < rates(adafactor)["all"] < 0.1
    prodigy = make_optimizer("Prodigy", [Group("all", 1.0, trained)], {"d0": 1e-5})
    assert rates(prodigy) == {"all": pytest.approx(1e-5)}


def test_json_numbers_for_betas_become_floats() -> None:
    optimizer = make_optimizer("AdamW", [Group("all", 1e-3, weights(torch.float32))], {"betas": (0, 0.99)})
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.99)


def test_options_that_do_not_fit_are_refused_with_their_name() -> None:
    with pytest.raises(Refusal, match=r'optimizer_args: the optimizer "Lion" does not accept .*momentum'):
        make_optimizer("Lion", [Group("all", 1e-3, weights(torch.float32))], {"momentum": 0.9})


def test_loading_does_not_alias_what_was_saved() -> None:
    trained = weights(torch.float32)
    optimizer = make_optimizer("AdamW", [Group("all", 0.01, trained)], {})
    run(optimizer, trained, range(2))
    saved = copy.deepcopy(optimizer.state_dict())
    load_optimizer_state(optimizer, saved)
    before = saved["state"][0]["exp_avg"].clone()
    run(optimizer, trained, range(2, 4))
    assert torch.equal(saved["state"][0]["exp_avg"], before)
