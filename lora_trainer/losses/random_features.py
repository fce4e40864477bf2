"""A small network with fixed random weights, in place of Inception and VGG where their files are not at hand.

What it sees is enough to tell whether one training goes better than before. Its numbers mean nothing else.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SEED = 20151205
WIDTHS = (3, 24, 48, 96)
LARGEST_PX = 64
CLASSES = 16


class RandomFeatures(nn.Module):
    """Three convolutions of 3 x 3 with random weights, each followed by a halving.

    The features are means and deviations over the picture of every layer. Sees (b, 3, h, w) from 0 to 255.
    """

    def __init__(self) -> None:
        super().__init__()
        draws = np.random.RandomState(SEED)  # whose numbers never change between versions
        for index, (before, after) in enumerate(pairwise(WIDTHS)):
            kernel = draws.standard_normal((after, before, 3, 3)) / np.sqrt(before * 9)
            kernel[1:] -= kernel[1:].mean((1, 2, 3), keepdims=True)  # all but the first see edges, not brightness
            self.register_buffer(f"kernel{index}", torch.tensor(kernel, dtype=torch.float32))
        classes = draws.standard_normal((CLASSES, 2 * sum(WIDTHS[1:])))
        self.register_buffer("classes", torch.tensor(classes, dtype=torch.float32))

    def features(self, images: Tensor) -> Tensor:
        """(b, 336)"""
        found = []
        for layer in self._layers(images):
            found += [layer.mean((2, 3)), layer.var((2, 3), correction=0).clamp(min=1e-12).sqrt()]
        return torch.cat(found, 1)

    def probabilities(self, images: Tensor) -> Tensor:
        """(b, 16)"""
        return F.linear(self.features(images), self.get_buffer("classes")).softmax(1)

    def perceptual(self, images: Tensor) -> Tensor:
        """(b, n) whose squared distances are perceptual differences, after a fashion."""
        return perceptual_vectors(self._layers(images))

    def _layers(self, images: Tensor) -> list[Tensor]:
        x = images.to(self.get_buffer("kernel0").dtype) / 127.5 - 1
        if max(x.shape[2:]) > LARGEST_PX:
            x = F.adaptive_avg_pool2d(x, LARGEST_PX)
        layers = []
        for index in range(len(WIDTHS) - 1):
            x = F.leaky_relu(F.conv2d(x, self.get_buffer(f"kernel{index}"), padding=1), 0.2) * 2**0.5
            layers.append(x)
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        return layers


def perceptual_vectors(layers: list[Tensor]) -> Tensor:
    """Layers (b, c, h, w) -> (b, n): scaled to length 1 at each place and weighted alike."""
    found = []
    for layer in layers:
        unit = layer / (layer.square().sum(1, keepdim=True).sqrt() + 1e-10)
        found.append(unit.flatten(1) / (layer.shape[2] * layer.shape[3]) ** 0.5)
    return torch.cat(found, 1)
