"""The networks of R3GAN: plain residual networks without style, noise or normalisation (Huang et al. 2024).

Channels at a resolution are min(cbase / resolution, cmax). A block widens its channels by a pixel's matrix, convolves
groups of them, and narrows them again; it begins as the identity, and the others as the paper's fixed-update
initialisation has it. b images, c channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.models.gan.filtering import FilterFactors, downsample, normalized_filter, upsample
from lora_trainer.models.gan.half_precision import HalfPrecision
from lora_trainer.models.gan.mapping import Generator as StyleGenerator

Z_DIM = 64
BLOCKS = 2  # of a resolution
EXPANSION = 2
GROUP_CHANNELS = 16
LAYERS = 3  # of a block
SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # which a leaky ReLU of this slope takes
TAPS = (1, 3, 3, 1)  # of resampling: bilinear


class Convolution(nn.Module):
    """Without a bias, of weights that are drawn so that its output has `gain` times the deviation of its input."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, groups: int = 1, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.groups, self.padding = groups, kernel // 2
        fan_in = in_channels // groups * kernel**2
        weight = torch.randn(out_channels, in_channels // groups, kernel, kernel)
        self.weight = nn.Parameter(weight * (gain / math.sqrt(fan_in)))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.to(x.dtype), padding=self.padding, groups=self.groups)


class Bend(nn.Module):
    """A bias for each channel and a leaky ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias.to(x.dtype)[:, None, None], SLOPE)


class Block(nn.Module):
    """(b, c, h, w) -> the same; `blocks` is how many there are in the network."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        wide = channels * EXPANSION
        gain = GAIN * blocks ** (-1 / (2 * LAYERS - 2))
        self.widen = Convolution(channels, wide, gain=gain)
        self.bend0 = Bend(wide)
        self.convolve = Convolution(wide, wide, 3, groups_of(wide), gain)
        self.bend1 = Bend(wide)
        self.narrow = Convolution(wide, channels, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bend0(self.widen(x))
        narrowed: Tensor = self.narrow(self.bend1(self.convolve(y)))
        return x + narrowed


class Resampling(nn.Module):
    """Doubles or halves the size; the channels change where there are fewer pixels to do it for."""

    filter: Tensor

    def __init__(self, in_channels: int, out_channels: int, enlarges: bool) -> None:
        super().__init__()
        self.enlarges = enlarges
        self.factors = FilterFactors()
        self.register_buffer("filter", normalized_filter(TAPS))
        self.mix = Convolution(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        factors = self.factors.of(self.filter)
        if self.enlarges:
            return upsample(self.mix(x), factors)
        mixed: Tensor = self.mix(downsample(x, factors))
        return mixed


class Latent(nn.Module):
    """z and the embedded label side by side, (b, 1, w_dim): what the other networks' mapping is here."""

    num_layers = 0

    def __init__(self, z_dim: int, c_dim: int) -> None:
        super().__init__()
        self.z_dim, self.c_dim = z_dim, c_dim
        self.embed = nn.Linear(c_dim, z_dim, bias=False) if c_dim else None
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, std=1 / math.sqrt(c_dim))

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
    ) -> Tensor:
        """There is no mean to be truncated to, nor one to be updated. Raises ValueError for a truncation."""
        if truncation_psi != 1 or truncation_cutoff is not None:
            raise ValueError("r3gan has no truncation: leave truncation_psi at 1")
        if self.embed is None:
            return z[:, None]
        if c is None:
            raise ValueError(f"the network is conditional: give labels (b, {self.c_dim})")
        return torch.cat([z, self.embed(c.to(self.embed.weight.dtype))], 1)[:, None]


class SynthesisNetwork(nn.Module):
    """(b, 1, w_dim) -> images (b, img_channels, resolution, resolution)."""

    num_ws = 1

    def __init__(
        self,
        w_dim: int,
        resolution: int,
        img_channels: int = 3,
        *,
        cbase: int = 32768,
        cmax: int = 512,
        half: HalfPrecision = HalfPrecision(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.precision, self.resolutions = half, resolutions(resolution)
        widths = channels(resolution, cbase, cmax)
        self.basis = nn.Parameter(torch.randn(widths[4], 4, 4))
        self.scale = nn.Linear(w_dim, widths[4], bias=False)
        nn.init.normal_(self.scale.weight, std=1 / math.sqrt(w_dim))
        for each in self.resolutions:
            layers: list[nn.Module] = []
            if each > 4:
                layers.append(Resampling(widths[each // 2], widths[each], enlarges=True))
            layers += [Block(widths[each], BLOCKS * len(self.resolutions)) for _ in range(BLOCKS)]
            self.add_module(f"b{each}", nn.Sequential(*layers))
        self.colours = Convolution(widths[resolution], img_channels)

    def forward(self, ws: Tensor, *, update_emas: bool = False, force_fp32: bool = False) -> Tensor:
        half = self.precision.dtype_on(ws.device, force_fp32)
        x = self.basis * self.scale(ws[:, 0])[:, :, None, None]
        for each in self.resolutions:
            x = self.get_submodule(f"b{each}")(x.to(_dtype(self.precision, each, self.resolutions[-1], half, ws.dtype)))
        images: Tensor = self.colours(x.to(ws.dtype))
        return images


class Generator(StyleGenerator):
    """z, labels -> images; called as the StyleGAN generators are."""

    mapping: Latent  # type: ignore[assignment]

    def __init__(self, synthesis: SynthesisNetwork, mapping: Latent) -> None:
        nn.Module.__init__(self)
        self.synthesis, self.mapping = synthesis, mapping
        self.z_dim, self.c_dim, self.num_ws = mapping.z_dim, mapping.c_dim, synthesis.num_ws
        self.w_dim = latent_dim(mapping.z_dim, mapping.c_dim)


class Discriminator(nn.Module):
    """Images (b, channels, resolution, resolution), labels (b, c_dim) -> logits (b, 1), high for what looks real."""

    def __init__(
        self,
        resolution: int,
        img_channels: int = 3,
        c_dim: int = 0,
        *,
        cbase: int = 32768,
        cmax: int = 512,
        half: HalfPrecision = HalfPrecision(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.precision, self.c_dim, self.resolutions = half, c_dim, resolutions(resolution)
        widths = channels(resolution, cbase, cmax)
        self.colours = Convolution(img_channels, widths[resolution])
        for each in self.resolutions[::-1]:
            layers: list[nn.Module] = [Block(widths[each], BLOCKS * len(self.resolutions)) for _ in range(BLOCKS)]
            if each > 4:
                layers.append(Resampling(widths[each], widths[each // 2], enlarges=False))
            self.add_module(f"b{each}", nn.Sequential(*layers))
        self.basis = nn.Parameter(torch.randn(widths[4], 1, 4, 4) / 4)
        label_dim = widths[4] if c_dim else 1
        self.out = nn.Linear(widths[4], label_dim, bias=False)
        nn.init.normal_(self.out.weight, std=1 / math.sqrt(widths[4]))
        self.embed = nn.Linear(c_dim, label_dim, bias=False) if c_dim else None
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, std=1 / math.sqrt(c_dim))

    def forward(self, images: Tensor, c: Tensor | None = None, *, force_fp32: bool = False) -> Tensor:
        full = self.basis.dtype
        half = self.precision.dtype_on(images.device, force_fp32)
        x = self.colours(images.to(full))
        for each in self.resolutions[::-1]:
            x = self.get_submodule(f"b{each}")(x.to(_dtype(self.precision, each, self.resolutions[-1], half, full)))
        y = self.out(F.conv2d(x.to(full), self.basis, groups=len(self.basis)).flatten(1))
        if self.embed is None:
            logits: Tensor = y
            return logits
        if c is None:
            raise ValueError(f"the network is conditional: give labels (b, {self.c_dim})")
        matched: Tensor = (y * self.embed(c.to(full))).sum(1, keepdim=True)
        return matched / math.sqrt(y.shape[1])


def resolutions(resolution: int) -> list[int]:
    """4, 8 and so on."""
    return [4 << step for step in range(resolution.bit_length() - 2)]


def channels(resolution: int, cbase: int, cmax: int) -> dict[int, int]:
    """By the resolution."""
    return {each: max(1, min(cbase // each, cmax)) for each in resolutions(resolution)}


def latent_dim(z_dim: int, c_dim: int) -> int:
    return z_dim * (2 if c_dim else 1)


def groups_of(wide: int) -> int:
    """The most groups of GROUP_CHANNELS or more that share the channels evenly."""
    return next(count for count in range(max(1, wide // GROUP_CHANNELS), 0, -1) if wide % count == 0)


def _dtype(
    precision: HalfPrecision, resolution: int, highest: int, half: torch.dtype | None, full: torch.dtype
) -> torch.dtype:
    return half if half is not None and precision.covers(resolution, highest) else full
