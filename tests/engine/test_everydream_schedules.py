"""EveryDream2's curves against diffusers' own schedulers and known numbers."""

from __future__ import annotations

import pytest
import torch
from diffusers.optimization import get_scheduler

from lora_trainer.engine.everydream_schedules import RateCurve, rate_curve


def of_diffusers(name: str, rate: float, warmup: int, decay: int, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=decay)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "polynomial"])
@pytest.mark.parametrize(("warmup", "decay"), [(3, 150), (0, 60), (10, 101)])
def test_curves_are_those_of_diffusers_past_their_decay_too(name: str, warmup: int, decay: int) -> None:
    curve = rate_curve(name, 2e-6, 100, warmup, decay)
    ours = [curve.at(step) for step in range(160)]
    assert ours == pytest.approx(of_diffusers(name, 2e-6, warmup, decay, 160), rel=1e-12, abs=1e-18)


def test_what_is_not_set_follows_from_the_run() -> None:
    curve = rate_curve("cosine", 1e-6, 100)
    assert (curve.decay_steps, curve.warmup_steps) == (150, 3)
    assert [curve.at(step) for step in (0, 1, 3)] == pytest.approx([0, 1e-6 / 3, 1e-6])
    assert curve.at(99) / 1e-6 == pytest.approx(0.2692, abs=5e-4)  # the end of the run
    assert rate_curve("cosine", 1e-6, 101).decay_steps == 151
    assert rate_curve("cosine", 1e-6, 100, 0, 80) == RateCurve("cosine", 0, 80, 1e-6)
    assert rate_curve("linear", 1e-6, 100, decay_steps=500).warmup_steps == 10


def test_a_rate_that_ends_before_the_run_is_told() -> None:
    assert rate_curve("cosine", 1e-6, 100, 0, 100).warning(100) == ""
    assert rate_curve("cosine", 1e-6, 100).warning(100) == ""
    assert rate_curve("constant", 1e-6, 100, 0, 10).warning(100) == ""
    assert rate_curve("cosine", 1e-6, 100, 100, 500).warning(100, "text_encoder_") == (
        "the rate still rises when the run ends, in step 100 of 100 of its warm-up; "
        "make text_encoder_lr_warmup_steps smaller"
    )
    assert rate_curve("cosine", 1e-6, 100, 0, 50).warning(100) == (
        "the rate comes down to 0 in step 50 of 100 and rises again; set lr_decay_steps to 100 or more"
    )
    assert "nothing is learnt after it" in rate_curve("linear", 1e-6, 100, 0, 50).warning(100)
    assert rate_curve("cosine", 1e-6, 100, 0, 50).at(100) == pytest.approx(1e-6)
