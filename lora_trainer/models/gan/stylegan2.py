"""The synthesis network of StyleGAN2, with skip connections (Karras et al. 2020).

Channels at a resolution are min(cbase / resolution, cmax). A block takes one w for each of its layers, the last of
which, `torgb`, it shares with the first layer of the next block.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lora_trainer.models.gan.filtering import FilterFactors, normalized_filter, upsample
from lora_trainer.models.gan.fully_connected import FullyConnected
from lora_trainer.models.gan.half_precision import HalfPrecision
from lora_trainer.models.gan.leaky_relu import GAIN, leaky_relu
from lora_trainer.models.gan.modulated_convolution import bounded, demodulation, modulated_conv2d

RESAMPLE_TAPS = (1, 3, 3, 1)


class SynthesisLayer(nn.Module):
    """A modulated 3 x 3 convolution, noise, bias and leaky ReLU."""

    noise_strength: Tensor
    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, resolution: int, up: int, clamp: float | None
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.clamp = resolution, up, clamp
        self.affine = FullyConnected(w_dim, in_channels, stored_bias=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", normalized_filter(RESAMPLE_TAPS))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.factors = FilterFactors()

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """x (b, i, h, w) in the precision to compute in, noise (b, 1, h', w') or (h', w') or None."""
        weight, styles = bounded(self.weight, self.affine(w), x.dtype)
        scales = demodulation(weight, styles) * GAIN  # the gain passes through the leaky ReLU
        factors = self.factors.of(self.resample_filter) if self.up == 2 else None
        y = modulated_conv2d(x, weight, styles, scales, padding=1, up_factors=factors)
        if noise is not None:
            y = y + (noise * (self.noise_strength * GAIN)).to(y.dtype)
        y = y + (self.bias * GAIN).to(y.dtype)[:, None, None]
        return leaky_relu(y, 1.0, self.clamp)


class ToRGB(nn.Module):
    """A modulated 1 x 1 convolution to colours, without demodulation."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, in_channels, stored_bias=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.style_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        y = modulated_conv2d(x, self.weight, self.affine(w) * self.style_gain, None)
        y = y + self.bias.to(y.dtype)[:, None, None]
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)


class SynthesisBlock(nn.Module):
    """Doubles the resolution of the features and of the image; the first block begins with a learned constant."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        clamp: float | None,
        half: bool,
    ) -> None:
        super().__init__()
        self.resolution, self.is_half = resolution, half
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        self.register_buffer("resample_filter", normalized_filter(RESAMPLE_TAPS))
        self.conv0 = None
        if in_channels:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, 2, clamp)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, 1, clamp)
        self.torgb = ToRGB(out_channels, img_channels, w_dim, clamp)
        self.factors = FilterFactors()

    @property
    def layers(self) -> list[SynthesisLayer]:
        return [self.conv1] if self.conv0 is None else [self.conv0, self.conv1]

    def forward(
        self, x: Tensor | None, image: Tensor | None, ws: list[Tensor], noises: list[Tensor | None], dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """ws and noises one for each layer, ws one more for the colours; the image stays in full precision."""
        if x is None:
            x = self.const[None].expand(ws[0].shape[0], -1, -1, -1)
        x = x.to(dtype)
        for layer, w, noise in zip(self.layers, ws[:-1], noises, strict=True):
            x = layer(x, w, noise)
        colours = self.torgb(x, ws[-1]).to(ws[-1].dtype)
        if image is not None:
            colours = upsample(image, self.factors.of(self.resample_filter)) + colours
        return x, colours


class SynthesisNetwork(nn.Module):
    """ws (b, num_ws, w_dim) -> images (b, img_channels, resolution, resolution)."""

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
        self.precision = half
        self.resolutions = [4 << step for step in range(resolution.bit_length() - 2)]
        channels = {each: min(cbase // each, cmax) for each in self.resolutions}
        for each in self.resolutions:
            before = channels.get(each // 2, 0)
            block = SynthesisBlock(
                before, channels[each], w_dim, each, img_channels, clamp, half.covers(each, resolution)
            )
            self.add_module(f"b{each}", block)
        self.num_ws = 2 * len(self.resolutions)

    @property
    def blocks(self) -> list[SynthesisBlock]:
        return [self.get_submodule(f"b{each}") for each in self.resolutions]  # type: ignore[misc]

    @property
    def noise_size(self) -> int:
        """Numbers of noise that one image takes."""
        return sum(layer.resolution**2 for block in self.blocks for layer in block.layers)

    def forward(
        self, ws: Tensor, *, noise: Tensor | str = "random", update_emas: bool = False, force_fp32: bool = False
    ) -> Tensor:
        """`noise` is "random" (PyTorch's generator), "const", "none", or normal numbers (b, noise_size)."""
        half = self.precision.dtype_on(ws.device, force_fp32)
        if isinstance(noise, str) and noise == "random":
            noise = torch.randn(len(ws), self.noise_size, device=ws.device, dtype=ws.dtype)
        every_w = list(ws.unbind(1))
        x: Tensor | None = None
        image: Tensor | None = None
        first = used = 0
        for block in self.blocks:
            count = len(block.layers)
            noises: list[Tensor | None] = []
            for layer in block.layers:
                noises.append(_noise_of(layer, noise, used))
                used += layer.resolution**2
            dtype = half if half is not None and block.is_half else ws.dtype
            x, image = block(x, image, every_w[first : first + count + 1], noises, dtype)
            first += count
        assert image is not None
        return image


def _noise_of(layer: SynthesisLayer, noise: Tensor | str, used: int) -> Tensor | None:
    side = layer.resolution
    if isinstance(noise, Tensor):
        return noise[:, used : used + side * side].view(-1, 1, side, side)
    if noise not in ("const", "none"):
        raise ValueError(f'noise is {noise!r}; give "random", "const", "none" or numbers')
    return layer.noise_const if noise == "const" else None
