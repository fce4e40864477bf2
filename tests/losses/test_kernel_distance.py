"""The kernel distance: worked by hand, unbiased, and drawn in the documented way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lora_trainer.losses.kernel_distance import kernel_distance, unbiased_distance


def test_two_features_by_hand() -> None:
    """With one dimension the kernel is (x y + 1)^3."""
    real, fake = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[2.0], [-1.0]]).double()
    own_real, own_fake = (0 * 1 + 1) ** 3, (2 * -1 + 1) ** 3
    between = [(x * y + 1) ** 3 for x in (0, 1) for y in (2, -1)]
    assert unbiased_distance(real, fake) == pytest.approx(own_real + own_fake - 2 * sum(between) / 4)
    assert kernel_distance(real, fake, subsets=3) == pytest.approx(own_real + own_fake - 2 * sum(between) / 4)


def test_it_is_unbiased() -> None:
    """Of two samples of one distribution the mean is 0, however small they are, and single values lie on both sides."""
    draws = torch.Generator().manual_seed(0)
    found = [
        unbiased_distance(*torch.randn(2, 10, 4, generator=draws, dtype=torch.float64).unbind()) for _ in range(2000)
    ]
    assert min(found) < 0 < max(found)
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(len(found))
    assert np.std(found) > 0.1


def test_subsets_are_drawn_by_numpys_legacy_generator_first_fake_then_real() -> None:
    draws = torch.Generator().manual_seed(1)
    real, fake = (torch.randn(size, 5, generator=draws) for size in (40, 30))
    chosen = np.random.RandomState(7)
    total = 0.0
    for _ in range(6):
        y = fake.double().numpy()[chosen.choice(30, 12, replace=False)]
        x = real.double().numpy()[chosen.choice(40, 12, replace=False)]
        a, b = (x @ x.T / 5 + 1) ** 3 + (y @ y.T / 5 + 1) ** 3, (x @ y.T / 5 + 1) ** 3
        total += (a.sum() - np.diag(a).sum()) / (12 * 11) - 2 * b.mean()
    assert kernel_distance(real, fake, subsets=6, size=12, seed=7) == pytest.approx(total / 6, rel=1e-10)


def test_a_single_feature_has_no_distance() -> None:
    assert math.isnan(kernel_distance(torch.ones(1, 3), torch.ones(5, 3)))
