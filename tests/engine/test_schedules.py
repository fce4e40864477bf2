"""The learning rate over time equals the field's own curves."""

from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from lora_trainer.engine.schedules import Curve, make_schedule


def reference(name: str, base: float, warmup: int, total: int, **options: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    scheduler = get_scheduler(name, optimizer, warmup, total, scheduler_specific_kwargs=options)
    rates = []
    for _ in range(total):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


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
    ],
)
def test_every_step_has_the_rate_of_transformers(
    name: str, theirs: str, curve: Curve, options: dict[str, float]
) -> None:
    schedule = make_schedule(name, curve)
    ours = [3e-4 * schedule(step) for step in range(curve.total_steps)]
    expected = reference(theirs, 3e-4, curve.warmup_steps, curve.total_steps, **options)
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_beyond_its_end_a_curve_stays_where_it_ended() -> None:
    assert make_schedule("cosine", Curve(10))(25) == 0.0
    assert make_schedule("cosine_with_restarts", Curve(10, num_cycles=2))(10) == 0.0
    assert make_schedule("polynomial", Curve(10, base_rate=1e-4))(10) == pytest.approx(1e-3)
