"""The residual discriminator of StyleGAN2, which all generators of the family are trained against.

Channels at a resolution are min(cbase / resolution, cmax), for every generator.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.models.gan.filtering import FilterFactors, normalized_filter, plan_resample, resample
from lora_trainer.models.gan.fully_connected import FullyConnected
from lora_trainer.models.gan.half_precision import HalfPrecision
from lora_trainer.models.gan.leaky_relu import GAIN, leaky_relu
from lora_trainer.models.gan.mapping import MappingNetwork
from lora_trainer.models.gan.stylegan2 import RESAMPLE_TAPS

HALF_POWER = math.sqrt(0.5)  # of either branch of a residual block


class Conv2d(nn.Module):
    """A convolution with equalised learning rate, that may halve the size; frozen weights are buffers by its names."""

    weight: Tensor
    bias: Tensor | None
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        bends: bool = True,
        down: int = 1,
        gain: float = 1.0,
        clamp: float | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.down, self.bends = down, bends
        self.padding = kernel // 2
        self.gain = gain * (GAIN if bends else 1.0)
        self.clamp = None if clamp is None else clamp * gain
        self.weight_gain = 1 / math.sqrt(in_channels * kernel**2)
        self.factors = FilterFactors()
        self.register_buffer("resample_filter", normalized_filter(RESAMPLE_TAPS))
        weight = torch.randn(out_channels, in_channels, kernel, kernel)
        bias = torch.zeros(out_channels) if bends else None
        if frozen:
            self.register_buffer("weight", weight)
            self.register_buffer("bias", bias)
        else:
            self.weight = nn.Parameter(weight)
            self.register_parameter("bias", None if bias is None else nn.Parameter(bias))

    def forward(self, x: Tensor) -> Tensor:
        # the gain of the activation within weight and bias: a leaky ReLU passes a positive factor through
        weight = (self.weight * (self.weight_gain * self.gain)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * self.gain).to(x.dtype)
        y = F.conv2d(x, weight, bias, padding=self.padding) if self.down == 1 else self._halved(x, weight, bias)
        if self.bends:
            return leaky_relu(y, 1.0, self.clamp)
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)

    def _halved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """One pixel: filter and halve, then convolve. Wider: filter, then convolve every other pixel."""
        factors = self.factors.of(self.resample_filter)
        single = weight.shape[-1] == 1
        padding = 1 if single else 2
        plan = plan_resample(factors, (x.shape[2], x.shape[3]), down=self.down if single else 1, padding=(padding,) * 4)
        return F.conv2d(resample(x, plan), weight, bias, stride=1 if single else self.down)


class DiscriminatorBlock(nn.Module):
    """Halves the size: two convolutions beside a filtered copy."""

    resample_filter: Tensor

    def __init__(
        self, image_channels: int, channels: int, out_channels: int, clamp: float | None, half: bool, frozen: list[bool]
    ) -> None:
        """`image_channels` is 0 for all blocks but the first; `frozen` says so of each layer in order."""
        super().__init__()
        self.is_half = half
        self.register_buffer("resample_filter", normalized_filter(RESAMPLE_TAPS))
        state = iter(frozen)
        self.fromrgb = None
        if image_channels:
            self.fromrgb = Conv2d(image_channels, channels, 1, clamp=clamp, frozen=next(state))
        self.conv0 = Conv2d(channels, channels, 3, clamp=clamp, frozen=next(state))
        self.conv1 = Conv2d(channels, out_channels, 3, down=2, gain=HALF_POWER, clamp=clamp, frozen=next(state))
        self.skip = Conv2d(channels, out_channels, 1, bends=False, down=2, gain=HALF_POWER, frozen=next(state))

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        x = x.to(dtype)
        if self.fromrgb is not None:
            x = self.fromrgb(x)
        summed: Tensor = self.skip(x) + self.conv1(self.conv0(x))
        return summed


def with_group_deviation(x: Tensor, group: int) -> Tensor:
    """(b, c, h, w) -> (b, c + 1, h, w): how much the images of a group differ from each other, as one channel.

    A group has min(group, b) images, b / group apart in the batch. So the groups of a whole batch are those of its
    parts when part p of m takes the images p, p + m, p + 2m ... Raises ValueError when b is no multiple.
    """
    count = len(x)
    group = min(group, count)
    if count % group:
        raise ValueError(f"mbstd_group {group} does not divide a batch of {count} images")
    members = x.view(group, count // group, *x.shape[1:])
    deviation = (members.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    return torch.cat([x, deviation.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)


class DiscriminatorEpilogue(nn.Module):
    """The features of 4 x 4 pixels -> one logit, or as many numbers as a label is embedded in."""

    def __init__(self, channels: int, label_dim: int, mbstd_group: int, clamp: float | None) -> None:
        super().__init__()
        self.label_dim, self.mbstd_group = label_dim, mbstd_group
        self.conv = Conv2d(channels + 1, channels, 3, clamp=clamp)
        self.fc = FullyConnected(channels * 16, channels, bends=True)
        self.out = FullyConnected(channels, label_dim or 1)

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        x = self.conv(with_group_deviation(x, self.mbstd_group))
        x = self.out(self.fc(x.flatten(1)))
        if label is None:
            return x
        return (x * label).sum(1, keepdim=True) / math.sqrt(self.label_dim)


def freezable_layers(resolution: int) -> int:
    """How many convolutions there are before the epilogue: `freezed` may be as many."""
    return 1 + 3 * (resolution.bit_length() - 3)


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
        mbstd_group: int = 4,
        freezed: int = 0,
        clamp: float | None = 256.0,
        half: HalfPrecision = HalfPrecision(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.precision, self.c_dim = half, c_dim
        self.resolutions = [8 << step for step in range(resolution.bit_length() - 4, -1, -1)]
        channels = {each: min(cbase // each, cmax) for each in (*self.resolutions, 4)}
        layer = 0
        for each in self.resolutions:
            image_channels = img_channels if each == resolution else 0
            count = 4 if image_channels else 3
            frozen = [layer + number < freezed for number in range(count)]
            layer += count
            halves = half.covers(each, resolution)
            block = DiscriminatorBlock(image_channels, channels[each], channels[each // 2], clamp, halves, frozen)
            self.add_module(f"b{each}", block)
        label_dim = channels[4] if c_dim else 0
        self.mapping = MappingNetwork(0, c_dim, label_dim, None) if c_dim else None
        self.b4 = DiscriminatorEpilogue(channels[4], label_dim, mbstd_group, clamp)

    def forward(self, images: Tensor, c: Tensor | None = None, *, force_fp32: bool = False) -> Tensor:
        half = self.precision.dtype_on(images.device, force_fp32)
        full = self.b4.out.weight.dtype
        x = images
        for each in self.resolutions:
            block = self.get_submodule(f"b{each}")
            x = block(x, half if half is not None and block.is_half else full)
        label = None if self.mapping is None else self.mapping(None, c)
        logits: Tensor = self.b4(x.to(full), label)
        return logits
