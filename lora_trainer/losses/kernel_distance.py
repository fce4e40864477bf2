"""The kernel distance between two sets of features: KID, an unbiased squared MMD (Bińkowski et al. 2018).

Unlike the Fréchet distance its expectation does not depend on how many features there are.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SUBSETS, SUBSET_SIZE = 100, 1000


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """(n, d) and (m, d) -> (n, m): (x y / d + 1)^3."""
    return (x @ y.t() / x.shape[1] + 1) ** 3


def unbiased_distance(real: Tensor, fake: Tensor) -> float:
    """The squared maximum mean discrepancy of as many real features as fake ones, (m, d); it may be below 0."""
    m = len(real)
    own = sum(_without_diagonal(kernel(features, features)) for features in (real, fake))
    return float(own / (m * (m - 1)) - 2 * kernel(fake, real).mean())


def kernel_distance(
    real: Tensor, fake: Tensor, *, subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = 0
) -> float:
    """The mean over subsets of (n, d) and (n', d), each of `size` features or of as many as there are.

    Subsets are drawn without putting back by numpy's RandomState(seed), whose numbers never change between versions:
    of each pair of subsets first the fake one, then the real one. A single feature has no distance: NaN.
    """
    real, fake = (features.detach().double() for features in (real, fake))
    m = min(len(real), len(fake), size)
    if m < 2:
        return float("nan")
    draws = np.random.RandomState(seed)

    def drawn(features: Tensor) -> Tensor:
        return features[torch.from_numpy(draws.choice(len(features), m, replace=False)).to(features.device)]

    total = 0.0
    for _ in range(subsets):
        chosen = drawn(fake)
        total += unbiased_distance(drawn(real), chosen)
    return total / subsets


def _without_diagonal(products: Tensor) -> Tensor:
    return products.sum() - products.diagonal().sum()
