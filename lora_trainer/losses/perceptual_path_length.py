"""The perceptual path length: how far an image moves when its latent moves a little (Karras et al. 2019).

Each path is a step of EPSILON from one end of a line between two latents; the distance is that of deep features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

EPSILON = 1e-4
LARGEST_PX = 256
TRIMMED_PERCENT = 1.0  # of the distances on either side


def end_points(first: Tensor, second: Tensor, epsilon: float = EPSILON) -> tuple[Tensor, Tensor]:
    """Latents (b, ...) of two draws -> the beginning of the lines between them, and a step further."""
    return first, torch.lerp(first, second, epsilon)


def as_measured(images: Tensor) -> Tensor:
    """Images (b, c, h, w) from -1 to 1 -> (b, 3, h', w') from 0 to 255 and of at most 256 px, each a mean of pixels."""
    factor = images.shape[2] // LARGEST_PX
    if factor > 1:
        images = torch.nn.functional.avg_pool2d(images, factor)
    return ((images + 1) * 127.5).expand(-1, 3, -1, -1)


def path_distances(first: Tensor, second: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Deep features (b, d) of both ends -> (b,) squared distances for a whole step."""
    return (first - second).square().sum(1) / epsilon**2


def mean_path_length(distances: Tensor) -> float:
    """The mean of the distances (n,) without the outermost percent on either side."""
    values = distances.double().cpu().numpy()
    low = np.percentile(values, TRIMMED_PERCENT, method="lower")
    high = np.percentile(values, 100 - TRIMMED_PERCENT, method="higher")
    return float(values[(values >= low) & (values <= high)].mean())
