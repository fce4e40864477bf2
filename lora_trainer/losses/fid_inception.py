"""The Inception network of 2015 that FID is defined with, in the names of pytorch-fid's file of its weights.

It is not torchvision's: pooling leaves borders out of its means, the last block takes maxima, there are 1008 classes,
and pictures are enlarged as TensorFlow did it, without centring the pixels (Szegedy et al. 2015).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.losses.pretrained import Published, wrong_content

FID_WEIGHTS = Published(
    "pytorch-fid's Inception",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
)
SIDE_PX = 299
CLASSES, FEATURES = 1008, 2048

Kernel = tuple[int, int]
Layer = tuple[str, int, Kernel]  # name, channels, kernel
Branch = tuple[tuple[Layer, ...], ...]  # one layer after another; more than one in a place stand side by side


def _chain(prefix: str, *layers: tuple[int, Kernel]) -> Branch:
    """Layers named prefix_1, prefix_2 ..., a single one prefix."""
    names = [prefix] if len(layers) == 1 else [f"{prefix}_{number}" for number in range(1, len(layers) + 1)]
    return tuple(((name, channels, kernel),) for name, (channels, kernel) in zip(names, layers, strict=True))


ONE, THREE, FIVE, WIDE, TALL = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)
DOUBLE = _chain("branch3x3dbl", (64, ONE), (96, THREE), (96, THREE))


def _mixed_5(pool: int) -> tuple[Sequence[Branch], int]:
    return (_chain("branch1x1", (64, ONE)), _chain("branch5x5", (48, ONE), (64, FIVE)), DOUBLE), pool


def _mixed_6(inner: int) -> tuple[Sequence[Branch], int]:
    single = _chain("branch7x7", (inner, ONE), (inner, WIDE), (192, TALL))
    double = _chain("branch7x7dbl", (inner, ONE), (inner, TALL), (inner, WIDE), (inner, TALL), (192, WIDE))
    return (_chain("branch1x1", (192, ONE)), single, double), 192


def _forked(prefix: str, *before: Layer, last: str) -> Branch:
    sides = ((f"{prefix}_{last}a", 384, (1, 3)), (f"{prefix}_{last}b", 384, (3, 1)))
    return (*((layer,) for layer in before), sides)


MIXED_7: tuple[Sequence[Branch], int] = (
    (
        _chain("branch1x1", (320, ONE)),
        _forked("branch3x3", ("branch3x3_1", 384, ONE), last="2"),
        _forked("branch3x3dbl", ("branch3x3dbl_1", 448, ONE), ("branch3x3dbl_2", 384, THREE), last="3"),
    ),
    192,
)
BLOCKS: Mapping[str, tuple[Sequence[Branch], int]] = {  # branches, and channels after the pooled one
    "Mixed_5b": _mixed_5(32),
    "Mixed_5c": _mixed_5(64),
    "Mixed_5d": _mixed_5(64),
    "Mixed_6a": ((_chain("branch3x3", (384, THREE)), DOUBLE), 0),  # 0: halves the resolution
    "Mixed_6b": _mixed_6(128),
    "Mixed_6c": _mixed_6(160),
    "Mixed_6d": _mixed_6(160),
    "Mixed_6e": _mixed_6(192),
    "Mixed_7a": (
        (
            _chain("branch3x3", (192, ONE), (320, THREE)),
            _chain("branch7x7x3", (192, ONE), (192, WIDE), (192, TALL), (192, THREE)),
        ),
        0,
    ),
    "Mixed_7b": MIXED_7,
    "Mixed_7c": MIXED_7,
}
STEM = (("Conv2d_1a_3x3", 3, 32, 3, 2, 0), ("Conv2d_2a_3x3", 32, 32, 3, 1, 0), ("Conv2d_2b_3x3", 32, 64, 3, 1, 1),
        ("Conv2d_3b_1x1", 64, 80, 1, 1, 0), ("Conv2d_4a_3x3", 80, 192, 3, 1, 0))  # fmt: skip
POOLED_AFTER = ("Conv2d_2b_3x3", "Conv2d_4a_3x3")
TAKES_MAXIMA = "Mixed_7c"


class Convolution(nn.Module):
    """Without bias, normalised by fixed statistics, and cut off below 0."""

    def __init__(self, before: int, after: int, kernel: Kernel, stride: int, padding: Kernel) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, and one that pools; with `pooled` 0 the last layer of each halves the resolution."""

    def __init__(self, channels: int, branches: Sequence[Branch], pooled: int, maxima: bool) -> None:
        super().__init__()
        self.branches, self.pooled, self.maxima = branches, pooled, maxima
        self.channels = pooled or channels
        for branch in branches:
            before = channels
            for place, layers in enumerate(branch):
                halves = not pooled and place == len(branch) - 1
                for name, after, kernel in layers:
                    padding = (0, 0) if halves else (kernel[0] // 2, kernel[1] // 2)
                    self.add_module(name, Convolution(before, after, kernel, 2 if halves else 1, padding))
                before = sum(after for _, after, _ in layers)
            self.channels += before
        if pooled:
            self.branch_pool = Convolution(channels, pooled, ONE, 1, (0, 0))

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for branch in self.branches:
            y = x
            for layers in branch:
                y = torch.cat([self.get_submodule(name)(y) for name, _, _ in layers], 1)
            found.append(y)
        return torch.cat([*found, self._pool(x)], 1)

    def _pool(self, x: Tensor) -> Tensor:
        if not self.pooled:
            return F.max_pool2d(x, 3, 2)
        pooled = F.max_pool2d(x, 3, 1, 1) if self.maxima else F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        result: Tensor = self.branch_pool(pooled)
        return result


class FidInception(nn.Module):
    """Sees pictures (b, 3, h, w) from 0 to 255."""

    def __init__(self) -> None:
        super().__init__()
        channels = 0
        for name, before, channels, kernel, stride, padding in STEM:
            self.add_module(name, Convolution(before, channels, (kernel, kernel), stride, (padding, padding)))
        for name, (branches, pooled) in BLOCKS.items():
            block = Mixed(channels, branches, pooled, name == TAKES_MAXIMA)
            self.add_module(name, block)
            channels = block.channels
        self.fc = nn.Linear(channels, CLASSES)
        self.requires_grad_(False).eval()

    def features(self, images: Tensor) -> Tensor:
        """(b, 2048)"""
        x = (enlarged(images.to(self.fc.weight.dtype)) - 128) / 128
        for name, *_ in STEM:
            x = self.get_submodule(name)(x)
            if name in POOLED_AFTER:
                x = F.max_pool2d(x, 3, 2)
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))

    def probabilities(self, images: Tensor) -> Tensor:
        """(b, 1008), without the bias, as the Inception score was first computed."""
        return F.linear(self.features(images), self.fc.weight).softmax(1)


def build_fid_inception(state: Any) -> FidInception:
    """With the weights of pytorch-fid's file. Raises Refusal when they are of something else."""
    network = FidInception()
    if not isinstance(state, Mapping):
        raise wrong_content(FID_WEIGHTS, f"a {type(state).__name__} instead of named tensors")
    for name, value in network.state_dict().items():
        given = state.get(name)
        if name.endswith("num_batches_tracked"):
            continue
        if not isinstance(given, Tensor) or given.shape != value.shape:
            found = f"the shape {tuple(given.shape)}" if isinstance(given, Tensor) else "nothing"
            raise wrong_content(FID_WEIGHTS, f"{found} for {name}, which has {tuple(value.shape)}")
        value.copy_(given)
    return network


def enlarged(images: Tensor) -> Tensor:
    """To 299 px bilinearly, where pixel i of n comes from i * old / n, as TensorFlow 1 has it."""
    rows, columns = (_places(side).to(images) for side in images.shape[2:])
    return rows @ images @ columns.t()


@lru_cache(maxsize=8)
def _places(side: int) -> Tensor:
    """(299, side)"""
    sources = torch.arange(SIDE_PX, dtype=torch.float64) * (side / SIDE_PX)
    first = sources.floor().clamp(max=side - 1)
    share = sources - first
    matrix = torch.zeros(SIDE_PX, side, dtype=torch.float64)
    lines = torch.arange(SIDE_PX)
    matrix[lines, first.long()] += 1 - share
    matrix[lines, (first.long() + 1).clamp(max=side - 1)] += share
    return matrix
