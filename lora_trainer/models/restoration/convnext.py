"""The ConvNeXt image encoder of open_clip's models (Liu et al. 2022), with the names of their files.

Letters: b batch, c channels, h w pixels. A stage is a row of blocks at one resolution, a quarter of the picture's in
the first and half of the one before in each that follows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

STAGES = 4
STEM_PX, HALVING_PX, KERNEL_PX = 4, 2, 7
WIDENING = 4  # of the layer within a block's MLP
NORM_EPS, NORM_EPS_XXLARGE = 1e-6, 1e-5
XXLARGE_WIDTH = 384  # of the first stage


@dataclass(frozen=True)
class ConvNextSizes:
    """Blocks and channels of the four stages, numbers of the image embedding, and those between its two layers.

    `hidden` is 0 where a single layer makes the embedding.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    embedding: int
    hidden: int = 0

    @property
    def norm_eps(self) -> float:
        return NORM_EPS_XXLARGE if self.widths[0] == XXLARGE_WIDTH else NORM_EPS


XXLARGE = ConvNextSizes((3, 4, 30, 3), (384, 768, 1536, 3072), 1024)


class ConvNextEncoder(nn.Module):
    """(b, 3, h, w), normalised -> the values of the first three stages, (b, c, h', w'), and the embedding, (b, c)."""

    def __init__(self, sizes: ConvNextSizes) -> None:
        super().__init__()
        self.trunk = _Trunk(sizes)
        self.head = _Projection(sizes)

    def forward(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        x = self.trunk.stem(x)
        for stage in self.trunk.stages:
            x = stage(x)
            found.append(x)
        found[-1] = self.head(self.trunk.head(x.mean((2, 3))))
        return found


class _Trunk(nn.Module):
    def __init__(self, sizes: ConvNextSizes) -> None:
        super().__init__()
        eps, first = sizes.norm_eps, sizes.widths[0]
        self.stem = nn.Sequential(nn.Conv2d(3, first, STEM_PX, STEM_PX), _ChannelNorm(first, eps))
        before = (0, *sizes.widths)
        self.stages = nn.ModuleList(
            _Stage(before[index], width, depth, eps)
            for index, (width, depth) in enumerate(zip(sizes.widths, sizes.depths, strict=True))
        )
        self.head = nn.Sequential()
        self.head.add_module("norm", nn.LayerNorm(sizes.widths[-1], eps))


class _Projection(nn.Module):
    """One layer, or two with GELU between them."""

    def __init__(self, sizes: ConvNextSizes) -> None:
        super().__init__()
        if sizes.hidden:
            self.mlp = _Mlp(sizes.widths[-1], sizes.hidden, sizes.embedding, last_bias=False)
        else:
            self.proj = nn.Linear(sizes.widths[-1], sizes.embedding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.mlp(x) if hasattr(self, "mlp") else self.proj(x)
        return made


class _Stage(nn.Module):
    """The first one gets its resolution from the stem, so that nothing is `before` it."""

    def __init__(self, before: int, width: int, depth: int, eps: float) -> None:
        super().__init__()
        halving = (_ChannelNorm(before, eps), nn.Conv2d(before, width, HALVING_PX, HALVING_PX)) if before else ()
        self.downsample = nn.Sequential(*halving)
        self.blocks = nn.Sequential(*(_Block(width, eps) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.blocks(self.downsample(x))
        return made


class _Block(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, KERNEL_PX, padding=KERNEL_PX // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps)
        self.mlp = _Mlp(width, WIDENING * width, width)
        self.gamma = nn.Parameter(self.norm.weight.new_ones(width))

    def forward(self, x: Tensor) -> Tensor:
        change = self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1))) * self.gamma
        made: Tensor = x + change.permute(0, 3, 1, 2)
        return made


class _Mlp(nn.Module):
    def __init__(self, inside: int, hidden: int, outside: int, *, last_bias: bool = True) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inside, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, outside, bias=last_bias)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.fc2(self.act(self.fc1(x)))
        return made


class _ChannelNorm(nn.LayerNorm):
    """Over the channels of (b, c, h, w)."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


_BLOCK = re.compile(r"trunk\.stages\.(\d)\.blocks\.(\d+)\.conv_dw\.weight")


def sizes_in(shapes: Mapping[str, tuple[int, ...]]) -> ConvNextSizes | None:
    """Which encoder the tensors of a file are of, named `trunk.` and `head.`; None where they are of none."""
    widths, depths = [0] * STAGES, [0] * STAGES
    for name, shape in shapes.items():
        found = _BLOCK.fullmatch(name)
        if found and int(found[1]) < STAGES:
            widths[int(found[1])] = shape[0]
            depths[int(found[1])] += 1
    if not all(depths):
        return None
    if projection := shapes.get("head.proj.weight"):
        return ConvNextSizes(tuple(depths), tuple(widths), projection[0])
    hidden, projection = shapes.get("head.mlp.fc1.weight"), shapes.get("head.mlp.fc2.weight")
    if not hidden or not projection:
        return None
    return ConvNextSizes(tuple(depths), tuple(widths), projection[0], hidden[0])
