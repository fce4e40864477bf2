"""Precision and recall of generated images by nearest neighbours of features (Kynkäänniemi et al. 2019).

A set of features covers the balls around each of them that reach to its k-th nearest other one.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEIGHBOURS = 3
BLOCK = 10_000  # features whose distances are held at a time


def ball_radii(features: Tensor, neighbours: int = NEIGHBOURS, block: int = BLOCK) -> Tensor:
    """(n, d) -> (n,): the distance to the k-th nearest other feature. Raises ValueError where there are too few."""
    if len(features) <= neighbours:
        raise ValueError(f"{len(features)} features have no {neighbours} neighbours each")
    rows = []
    for start in range(0, len(features), block):
        part = features[start : start + block]
        nearest = part.new_empty(len(part), 0)
        for column in range(0, len(features), block):
            distances = torch.cat([nearest, torch.cdist(part, features[column : column + block])], 1)
            nearest = distances.topk(min(neighbours + 1, distances.shape[1]), largest=False).values
        rows.append(nearest[:, neighbours])  # the nearest one is the feature itself
    return torch.cat(rows)


def covered_share(probes: Tensor, features: Tensor, radii: Tensor, block: int = BLOCK) -> float:
    """The share of probes (m, d) that lie in the ball of at least one feature (n, d)."""
    covered = 0
    for start in range(0, len(probes), block):
        part = probes[start : start + block]
        inside = torch.zeros(len(part), dtype=torch.bool, device=part.device)
        for column in range(0, len(features), block):
            distances = torch.cdist(part, features[column : column + block])
            inside |= (distances <= radii[column : column + block]).any(1)
        covered += int(inside.sum())
    return covered / len(probes)


def precision_recall(
    real: Tensor, fake: Tensor, neighbours: int = NEIGHBOURS, block: int = BLOCK
) -> tuple[float, float]:
    """The share of fake features (m, d) among the real ones (n, d), and the share of real ones among the fakes.

    Computed as exactly as the features are given, but at least in float32. Raises ValueError for too few features.
    """
    if real.dtype in (torch.float16, torch.bfloat16):
        real, fake = real.float(), fake.float()
    precision = covered_share(fake, real, ball_radii(real, neighbours, block), block)
    recall = covered_share(real, fake, ball_radii(fake, neighbours, block), block)
    return precision, recall
