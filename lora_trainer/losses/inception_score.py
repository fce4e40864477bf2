"""The Inception score: how sure a classifier is of each image, and how evenly the classes come up (Salimans 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

SPLITS = 10


def inception_score(probabilities: Tensor, splits: int = SPLITS) -> tuple[float, float]:
    """Probabilities (n, classes) -> mean and deviation over the splits of exp(mean KL(p(y|x) || p(y))).

    Split i of s holds the images from i n / s to (i + 1) n / s, rounded down.
    """
    p = probabilities.double()
    n = len(p)
    splits = max(1, min(splits, n))
    scores = []
    for index in range(splits):
        part = p[index * n // splits : (index + 1) * n // splits]
        overall = part.mean(0, keepdim=True).expand_as(part)
        divergence = (torch.xlogy(part, part) - torch.xlogy(part, overall)).sum(1)
        scores.append(divergence.mean().exp())
    found = torch.stack(scores)
    return float(found.mean()), float(found.std(correction=0))
