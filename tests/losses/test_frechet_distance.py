"""The Fréchet distance: known normal distributions, scipy's root of a matrix, and sums that grow batch by batch."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from lora_trainer.losses.frechet_distance import Moments, frechet_distance, frechet_feature_distance, moments_of


def features(count: int, dimension: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dimension, dimension, generator=generator)
    return torch.randn(count, dimension, generator=generator) @ mix + seed


def test_covariances_that_commute_have_a_plain_distance() -> None:
    """With diagonal covariances it is |m - m'|^2 plus the squared differences of the deviations."""
    mean, other = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.0, 4.0, 0.0])
    deviations, others = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 0.0])
    found = frechet_distance(mean, torch.diag(deviations**2), other, torch.diag(others**2))
    assert found == pytest.approx((1 + 4) + (1 + 0 + 9), rel=1e-12)


def test_it_is_the_formula_with_scipys_root() -> None:
    real, fake = features(300, 24, 1), features(200, 24, 2)
    x, y = real.double().numpy(), fake.double().numpy()
    covariances = [np.cov(each, rowvar=False, bias=True) for each in (x, y)]
    root = scipy.linalg.sqrtm(covariances[1] @ covariances[0]).real
    wanted = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_feature_distance(real, fake) == pytest.approx(wanted, rel=1e-9)


def test_fewer_features_than_dimensions_are_no_trouble() -> None:
    few = features(5, 24, 1)
    assert frechet_feature_distance(few, few) == pytest.approx(0, abs=1e-4)
    shifted = frechet_feature_distance(few, few + 2)
    assert shifted == pytest.approx(24 * 4, rel=1e-6)


def test_the_order_does_not_matter_and_the_covariance_is_divided_by_n() -> None:
    real, fake = features(40, 6, 3), features(50, 6, 4)
    assert frechet_feature_distance(real, fake) == pytest.approx(frechet_feature_distance(fake, real), rel=1e-9)
    np.testing.assert_allclose(moments_of(real).covariance, np.cov(real.T, bias=True), rtol=1e-5)


def test_sums_do_not_need_the_features_at_once() -> None:
    values = features(101, 7, 5)
    moments = Moments(7)
    for part in values.split(16):
        moments.add(part)
    whole = moments_of(values)
    assert moments.count == 101
    torch.testing.assert_close(moments.mean, whole.mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(moments.covariance, whole.covariance, rtol=1e-10, atol=1e-10)
    assert moments.mean.dtype == torch.float64
