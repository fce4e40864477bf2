"""The KL term against torch's distributions."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from lora_trainer.draws import torch_generator
from lora_trainer.losses.latents import kl_loss, mean_loss, warmed_up


def test_the_divergence_is_that_of_torch() -> None:
    mean, log_variance = torch.randn(2, 3, 4, 5, 6, generator=torch_generator("latents")).unbind(0)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).flatten(1).mean(1)
    torch.testing.assert_close(kl_loss(mean, log_variance), expected)


def test_a_normal_distribution_costs_nothing() -> None:
    assert kl_loss(torch.zeros(2, 4, 3, 3), torch.zeros(2, 4, 3, 3)).tolist() == [0, 0]


def test_the_part_of_the_means_is_what_a_fixed_spread_leaves() -> None:
    mean = torch.randn(2, 4, 3, 3, generator=torch_generator("means"))
    torch.testing.assert_close(mean_loss(mean), kl_loss(mean, torch.zeros_like(mean)))


def test_half_precision_is_computed_in_full() -> None:
    mean = torch.full((1, 4, 2, 2), 300.0, dtype=torch.float16)
    assert kl_loss(mean, torch.zeros_like(mean)).item() == pytest.approx(45000)  # 300 ** 2 overflows in fp16


@pytest.mark.parametrize(("step", "weight"), [(0, 0.5), (2, 1.5), (3, 2.0), (99, 2.0)])
def test_a_term_comes_in_along_a_line(step: int, weight: float) -> None:
    assert warmed_up(2.0, step, 4) == weight


def test_without_a_warm_up_it_is_there_at_once() -> None:
    assert warmed_up(2.0, 0, 0) == 2.0
