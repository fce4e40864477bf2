"""The synthesis network of CREPS: no convolution over space, and pictures of any size (Li et al. 2022, "thick lines").

A picture is composed of two thick lines, one along each axis: r points x 8 ranks each, whose outer products over
the rank are feature maps. All blocks work on the two lines at the full output size; b batch, c channels, r points.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.models.gan.fully_connected import FullyConnected
from lora_trainer.models.gan.half_precision import HalfPrecision
from lora_trainer.models.gan.leaky_relu import GAIN, leaky_relu
from lora_trainer.models.gan.modulated_convolution import bounded, demodulation, modulated_product

RANK = 8
LINES = 2
COMPOSED_CHANNELS = 32
DECODER_WIDTHS = (64, 128, 64, COMPOSED_CHANNELS)
FREQUENCY_STD = 10.0


class LineInput(nn.Module):
    """w -> both lines (b, c, r, 2 * 8): sines of random frequencies at the points' places, scaled by w.

    `coords` (1, r, 2, 1) holds the places, 0 to 1 along either line; another number of points gives another size.
    """

    freqs: Tensor
    coords: Tensor

    def __init__(self, w_dim: int, channels: int, resolution: int) -> None:
        super().__init__()
        self.channels = channels
        self.affine = FullyConnected(w_dim, channels * LINES * RANK, stored_bias=1)
        self.weight = nn.Parameter(torch.randn(1, channels, 1, LINES * RANK))
        self.register_buffer("freqs", torch.randn(1, channels // 2 * RANK) * FREQUENCY_STD)
        self.register_buffer("coords", line_places(resolution))

    def forward(self, w: Tensor, coords: Tensor) -> Tensor:
        points = coords.shape[1]
        phases = 2 * math.pi * coords * self.freqs  # (1, r, 2, c / 2 * 8)
        phases = phases.view(points, LINES, self.channels // 2, RANK).permute(2, 0, 1, 3).flatten(2)
        waves = torch.cat([phases.sin(), (phases + math.pi / 2).sin()])
        styles = self.affine(w).view(-1, self.channels, 1, LINES * RANK)
        lines: Tensor = waves * (self.weight * styles / math.sqrt(self.channels))
        return lines


class ModulatedLayer(nn.Module):
    """A modulated matrix on the channels of (b, i, n), n points; without `bends` it only maps, undemodulated."""

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, clamp: float | None, *, bends: bool = True
    ) -> None:
        super().__init__()
        self.bends, self.clamp = bends, clamp
        self.style_gain = 1.0 if bends else 1 / math.sqrt(in_channels)
        self.affine = FullyConnected(w_dim, in_channels, stored_bias=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) * self.style_gain
        if not self.bends:
            y = modulated_product(x, self.weight, styles, None) + self.bias.to(x.dtype)[:, None]
            return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)
        weight, styles = bounded(self.weight, styles, x.dtype)
        y = modulated_product(x, weight, styles, demodulation(weight, styles) * GAIN)
        return leaky_relu(y + (self.bias * GAIN).to(y.dtype)[:, None], 1.0, self.clamp)


class Block(nn.Module):
    """Two modulated layers, and the mapping `tores` of their result."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        w_dim: int,
        clamp: float | None,
        half: bool,
    ) -> None:
        super().__init__()
        self.is_half = half
        self.fc0 = ModulatedLayer(in_channels, channels, w_dim, clamp)
        self.fc1 = ModulatedLayer(channels, channels, w_dim, clamp)
        self.tores = ModulatedLayer(channels, out_channels, w_dim, clamp, bends=False)

    def forward(self, x: Tensor, ws: list[Tensor]) -> tuple[Tensor, Tensor]:
        """x (b, i, n) and three ws -> features (b, channels, n) and their mapping (b, out, n)."""
        x = self.fc1(self.fc0(x, ws[0]), ws[1])
        return x, self.tores(x, ws[2])


class FirstBlock(nn.Module):
    """The lines' beginning. Official snapshots hold a `tores` here, which nothing uses."""

    def __init__(self, channels: int, w_dim: int, resolution: int, clamp: float | None) -> None:
        super().__init__()
        self.input = LineInput(w_dim, channels, resolution)
        self.fc1 = ModulatedLayer(channels, channels, w_dim, clamp)
        self.tores = ModulatedLayer(channels, COMPOSED_CHANNELS, w_dim, clamp, bends=False)


def line_places(points: int) -> Tensor:
    """(1, points, 2, 1): from 0 to 1 along both lines."""
    return torch.linspace(0, 1, points)[None, :, None, None].repeat(1, 1, LINES, 1)


def compose(lines: Tensor) -> Tensor:
    """Both lines (b, c, r, 2 * 8) -> (b, c, r, r): a rank sums an outer product."""
    first, second = (lines * math.sqrt(0.5)).chunk(LINES, 3)
    return first @ second.transpose(2, 3)


class PixelDecoder(nn.Sequential):
    """A small network on the channels of each pixel, (b, 32, h, w) -> (b, 32, h, w)."""

    def __init__(self) -> None:
        widths = (COMPOSED_CHANNELS, *DECODER_WIDTHS)
        super().__init__(*(PixelLayer(before, after, bends=True) for before, after in pairwise(widths)))


class PixelLayer(FullyConnected):
    """A fully connected layer on the channels of (b, i, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        gain = GAIN if self.bends else 1.0
        weight = (self.weight * (self.weight_gain * gain)).to(x.dtype)[:, :, None, None]
        y = F.conv2d(x, weight, (self.bias * (self.bias_gain * gain)).to(x.dtype))
        return leaky_relu(y, 1.0) if self.bends else y


class SynthesisNetwork(nn.Module):
    """ws (b, num_ws, w_dim) -> images (b, img_channels, resolution, resolution), or any other size.

    Channels of the block of a nominal resolution are min(2 cbase / resolution, 2 cmax).
    """

    def __init__(
        self,
        w_dim: int,
        resolution: int,
        img_channels: int = 3,
        *,
        cbase: int = 32768,
        cmax: int = 512,
        clamp: float | None = 256.0,
        half: HalfPrecision = HalfPrecision(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.precision, self.resolution = half, resolution
        self.nominal = [4 << step for step in range(resolution.bit_length() - 2)]
        channels = {each: min(2 * cbase // each, 2 * cmax) for each in self.nominal}
        self.b4 = FirstBlock(channels[4], w_dim, resolution, clamp)
        for each in self.nominal[1:]:
            halves = half.covers(each, resolution)
            block = Block(channels[each // 2], channels[each], COMPOSED_CHANNELS, w_dim, clamp, halves)
            self.add_module(f"b{each}", block)
        for each in self.nominal[1:]:  # of 8 px too, as official snapshots have it, though nothing uses that one
            self.add_module(f"decoder_{each}", PixelDecoder())
        self.decoder_last = PixelDecoder()
        self.decoder_img = PixelLayer(COMPOSED_CHANNELS, img_channels)
        halves = half.resolutions > 0
        self.block0 = Block(COMPOSED_CHANNELS, 128, img_channels, w_dim, clamp, halves)
        self.block1 = Block(128, 64, img_channels, w_dim, clamp, halves)
        self.num_ws = 2 * len(self.nominal) + 1

    def unused_parameters(self) -> list[str]:
        """Names that official snapshots have and that never get a gradient."""
        unused = ("b4.tores.", "decoder_8.")
        return [name for name, _ in self.named_parameters() if name.startswith(unused)]

    def forward(
        self, ws: Tensor, *, points: int | None = None, update_emas: bool = False, force_fp32: bool = False
    ) -> Tensor:
        """`points` is the side of the images in pixels, the trained resolution when left out."""
        coords = self.b4.input.coords
        if points is not None and points != coords.shape[1]:
            coords = line_places(points).to(coords.device, coords.dtype)
        half = self.precision.dtype_on(ws.device, force_fp32)
        composed = self._composed(ws, coords, half)
        features = composed[0]
        for each, own in zip(self.nominal[2:], composed[1:], strict=True):
            features = self.get_submodule(f"decoder_{each}")(features) + own
        features = self.decoder_last(features)
        image: Tensor = self.decoder_img(features)
        side = image.shape[2:]
        x, last = features.flatten(2), ws[:, -1]
        for block in (self.block0, self.block1):
            x = x.to(half if half is not None and block.is_half else ws.dtype)
            x, more = block(x, [last] * 3)
            image = image + more.to(image.dtype).unflatten(2, side)
        return image

    def _composed(self, ws: Tensor, coords: Tensor, half: torch.dtype | None) -> list[Tensor]:
        """The feature maps of each nominal resolution from 8 upwards, (b, 32, r, r)."""
        every_w = list(ws.unbind(1))
        lines = self.b4.input(every_w[0], coords)
        shape = lines.shape[2:]
        x = self.b4.fc1(lines.flatten(2), every_w[1])
        maps = []
        total: Tensor | None = None
        for index, each in enumerate(self.nominal[1:]):
            block = self.get_submodule(f"b{each}")
            assert isinstance(block, Block)
            x = x.to(half if half is not None and block.is_half else ws.dtype)
            x, residual = block(x, every_w[2 + 2 * index : 5 + 2 * index])
            total = residual.to(ws.dtype) if total is None else total + residual.to(ws.dtype)
            maps.append(compose(total.unflatten(2, shape)))
        return maps
