"""The Fréchet distance between two sets of features, each taken for a normal distribution: FID (Heusel et al. 2017).

n features of d numbers. Sums are kept in double precision, and the features themselves need not be.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Mean (d,) and covariance (d, d), divided by n, of features that come a few at a time."""

    def __init__(self, dimension: int, device: torch.device | str = "cpu") -> None:
        device = torch.device(device)
        if device.type == "mps":  # has no double precision
            device = torch.device("cpu")
        self.count = 0
        self.sums = torch.zeros(dimension, dtype=torch.float64, device=device)
        self.products = torch.zeros(dimension, dimension, dtype=torch.float64, device=device)

    def add(self, features: Tensor) -> None:
        """(n, d)"""
        values = features.detach().to(self.sums.device, torch.float64)
        self.count += len(values)
        self.sums += values.sum(0)
        self.products += values.t() @ values

    @property
    def mean(self) -> Tensor:
        return self.sums / self.count

    @property
    def covariance(self) -> Tensor:
        return self.products / self.count - torch.outer(self.mean, self.mean)


def moments_of(features: Tensor) -> Moments:
    """Of features (n, d) that are all there."""
    moments = Moments(features.shape[1], features.device)
    moments.add(features)
    return moments


def frechet_distance(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), from means (d,) and covariances (d, d).

    The trace of the root of C C' is that of the root of C^(1/2) C' C^(1/2), which is symmetric: no complex numbers
    come up where there are fewer features than dimensions.
    """
    first, second = covariance.double(), other_covariance.double()
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.t()
    between = root @ second @ root
    overlap = torch.linalg.eigvalsh((between + between.t()) / 2).clamp(min=0).sqrt().sum()
    apart = (mean.double() - other_mean.double()).square().sum()
    return float(apart + first.trace() + second.trace() - 2 * overlap)


def frechet_feature_distance(real: Tensor, fake: Tensor) -> float:
    """The same from the features themselves, (n, d) and (m, d)."""
    first, second = moments_of(real), moments_of(fake)
    return frechet_distance(first.mean, first.covariance, second.mean, second.covariance)
