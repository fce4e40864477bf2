"""A small network with fixed random weights, in place of Inception and VGG where their files are not at hand.

What it sees is enough to tell whether one training goes better than before. Its numbers mean nothing else.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.losses.full_precision import full_precision

SEED = 20151205
WIDTHS = (3, 24, 48, 96)
LARGEST_PX = 64
CLASSES = 16
FLAT = 1e-3  # a squared length that is little beside 1


class RandomFeatures(nn.Module):
    """Three convolutions of 3 x 3 with random weights, each followed by a halving.

    The features are means and deviations over the picture of every layer. Sees (b, 3, h, w) from 0 to 255; a picture
    with a side above `largest_px` is made a square of that side first, with 0 none is.
    """

    def __init__(self, largest_px: int = LARGEST_PX) -> None:
        super().__init__()
        self.largest_px = largest_px
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
        for layer in self.layers(images):
            found += [layer.mean((2, 3)), layer.var((2, 3), correction=0).clamp(min=1e-12).sqrt()]
        return torch.cat(found, 1)

    def probabilities(self, images: Tensor) -> Tensor:
        """(b, 16)"""
        return F.linear(self.features(images), self.get_buffer("classes")).softmax(1)

    def perceptual(self, images: Tensor) -> Tensor:
        """(b, n) whose squared distances are perceptual differences, after a fashion."""
        return perceptual_vectors(self.layers(images))

    def layers(self, images: Tensor) -> list[Tensor]:
        """Of 24, 48 and 96 channels, each half as high and wide as the one before."""
        x = images.to(self.get_buffer("kernel0").dtype) / 127.5 - 1
        if self.largest_px and max(x.shape[2:]) > self.largest_px:
            x = F.adaptive_avg_pool2d(x, self.largest_px)
        found = []
        for index in range(len(WIDTHS) - 1):
            x = F.leaky_relu(F.conv2d(x, self.get_buffer(f"kernel{index}"), padding=1), 0.2) * 2**0.5
            found.append(x)
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        return found


class RandomLpips(nn.Module):
    """(b,) a difference of pictures (b, 3, h, w) from 0 to 1, in the place of LPIPS; 0 for equal pictures, at most 2.

    Of every layer it is 1 minus the cosine at each place, averaged. All pixels count, whatever the size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = RandomFeatures(largest_px=0)

    @full_precision
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        layers = zip(self.network.layers(output * 255), self.network.layers(target * 255), strict=True)
        apart = [(_directions(x) - _directions(y)).square().sum(1).mean((1, 2)) / 2 for x, y in layers]
        return torch.stack(apart).mean(0)


def _directions(layer: Tensor) -> Tensor:
    """Scaled to length 1 at each place, but where there is next to nothing, so that gradients stay small there."""
    return layer * (layer.square().sum(1, keepdim=True) + FLAT).rsqrt()


def perceptual_vectors(layers: list[Tensor]) -> Tensor:
    """Layers (b, c, h, w) -> (b, n): scaled to length 1 at each place and weighted alike."""
    found = []
    for layer in layers:
        unit = layer / (layer.square().sum(1, keepdim=True).sqrt() + 1e-10)
        found.append(unit.flatten(1) / (layer.shape[2] * layer.shape[3]) ** 0.5)
    return torch.cat(found, 1)
