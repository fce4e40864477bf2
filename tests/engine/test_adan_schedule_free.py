"""Adan inside Schedule-Free equals both papers' formulas, written out one number at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lora_trainer.engine.adan_schedule_free import AdanScheduleFree

BETAS = (0.9, 0.8, 0.95)


def written_out(
    start: float, gradients: list[float], rates: list[float], weight_decay: float = 0.0, power: float = 2.0
) -> tuple[list[float], list[float]]:
    """The points y where gradients were taken, one more than gradients, and the averages x after each step."""
    share, beta2, beta3 = BETAS
    x = z = y = start
    change = square = weights = highest = 0.0
    before = gradients[0]
    points, averages = [y], []
    for count, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        difference, before = gradient - before, gradient
        change = beta2 * change + (1 - beta2) * difference
        square = beta3 * square + (1 - beta3) * (gradient + beta2 * difference) ** 2
        direction = gradient + beta2 * change / (1 - beta2**count)
        direction /= math.sqrt(square / (1 - beta3**count)) + 1e-8
        z -= rate * (direction + weight_decay * y)
        highest = max(highest, rate)
        weights += highest**power
        part = highest**power / weights if weights else 0.0
        x = (1 - part) * x + part * z
        y = (1 - share) * z + share * x
        points.append(y)
        averages.append(x)
    return points, averages


def taken(weight: nn.Parameter, gradients: list[float], rates: list[float], **options: float) -> list[float]:
    optimizer = AdanScheduleFree([weight], betas=BETAS, **options)  # type: ignore[arg-type]
    optimizer.train()
    points = [weight.item()]
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
        points.append(weight.item())
    optimizer.eval()
    return [*points, weight.item()]


GRADIENTS = [0.3, -0.1, 0.25, 0.7, -0.4, 0.05, 0.9]


@pytest.mark.parametrize("rates", [[0.01] * 7, [0.002, 0.004, 0.006, 0.01, 0.005, 0.005, 0.001], [0.0] + [0.01] * 6])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_every_step_is_that_of_the_formulas(rates: list[float], weight_decay: float) -> None:
    weight = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
    points, averages = written_out(1.5, GRADIENTS, rates, weight_decay)
    found = taken(weight, GRADIENTS, rates, weight_decay=weight_decay)
    assert found == pytest.approx([*points, averages[-1]], rel=1e-10)


def test_its_own_warmup_multiplies_the_rate() -> None:
    weight = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
    points, averages = written_out(1.5, GRADIENTS, [0.01 * min(1.0, n / 4) for n in range(1, 8)])
    assert taken(weight, GRADIENTS, [0.01] * 7, warmup_steps=4) == pytest.approx([*points, averages[-1]], rel=1e-10)


def test_it_finds_the_bottom_of_a_valley() -> None:
    weight = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = AdanScheduleFree([weight], lr=0.05)
    optimizer.train()
    for _ in range(1000):
        weight.grad = 2 * (weight.detach() - torch.tensor([1.0, 0.5])) * torch.tensor([1.0, 30.0])
        optimizer.step()
    optimizer.eval()
    assert weight.tolist() == pytest.approx([1.0, 0.5], abs=1e-3)


def test_a_step_outside_of_training_is_an_error() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    with pytest.raises(RuntimeError, match=r"call train\(\) before"):
        AdanScheduleFree([weight]).step()


def test_betas_must_be_three() -> None:
    with pytest.raises(ValueError, match="three numbers"):
        AdanScheduleFree([nn.Parameter(torch.ones(2))], betas=(0.0, 0.9, 0.9))
