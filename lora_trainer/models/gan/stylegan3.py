"""The synthesis networks of StyleGAN3: T, equivariant to shifts, and R, to rotations too (Karras et al. 2021).

Frequencies are in cycles a picture, sampling rates in samples a picture; feature maps are larger than the picture by a
margin of 10 samples on each side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lora_trainer.models.gan.alias_free_filters import lowpass_filter
from lora_trainer.models.gan.filtering import FilterFactors, Plan, plan_resample, resample
from lora_trainer.models.gan.fourier_input import FourierInput
from lora_trainer.models.gan.fully_connected import FullyConnected
from lora_trainer.models.gan.half_precision import HalfPrecision
from lora_trainer.models.gan.leaky_relu import GAIN, SLOPE, leaky_relu
from lora_trainer.models.gan.modulated_convolution import bounded, demodulation, modulated_conv2d
from lora_trainer.models.gan.running_statistics import Averaging

LAYERS = 14  # without ToRGB
CRITICAL = 2  # last layers, filtered at the Nyquist frequency itself
FIRST_CUTOFF = 2.0
FIRST_STOPBAND = 2.0**2.1
LAST_STOPBAND = 2.0**0.3  # times the cutoff
MARGIN = 10
FILTER_SIZE = 6  # taps for each step of resampling
LEAKY_RATE = 2  # oversampling of a leaky ReLU
OUTPUT_SCALE = 0.25


@dataclass(frozen=True)
class Side:
    """A layer's signal on one side: sampling rate, cutoff, half width of the transition band, samples and channels."""

    rate: int
    cutoff: float
    half_width: float
    size: int
    channels: int


@dataclass(frozen=True)
class LayerSpec:
    """One layer of the schedule; `torgb` neither bends nor filters."""

    name: str
    before: Side
    after: Side
    kernel: int
    torgb: bool
    critical: bool
    radial: bool
    half: bool

    @property
    def working_rate(self) -> int:
        return max(self.before.rate, self.after.rate) * (1 if self.torgb else LEAKY_RATE)

    @property
    def up(self) -> int:
        return self.working_rate // self.before.rate

    @property
    def down(self) -> int:
        return self.working_rate // self.after.rate

    @property
    def up_taps(self) -> int:
        return FILTER_SIZE * self.up if self.up > 1 and not self.torgb else 1

    @property
    def down_taps(self) -> int:
        return FILTER_SIZE * self.down if self.down > 1 and not self.torgb else 1

    @property
    def padding(self) -> tuple[int, int]:
        """Samples at the working rate, front and back, that give the size after and keep the picture centred."""
        total = (self.after.size - 1) * self.down + 1
        total -= (self.before.size + self.kernel - 1) * self.up
        total += self.up_taps + self.down_taps - 2
        front = (total + self.up) // 2
        return front, total - front


def schedule(
    resolution: int, img_channels: int, cbase: int, cmax: int, kernel: int, radial: bool, half: int
) -> list[LayerSpec]:
    """The 15 layers: cutoffs and stopbands grow geometrically up to the last `CRITICAL` layers."""
    steps = np.minimum(np.arange(LAYERS + 1) / (LAYERS - CRITICAL), 1)
    last = resolution / 2
    cutoffs = FIRST_CUTOFF * (last / FIRST_CUTOFF) ** steps
    stopbands = FIRST_STOPBAND * (last * LAST_STOPBAND / FIRST_STOPBAND) ** steps
    rates = np.exp2(np.ceil(np.log2(np.minimum(stopbands * 2, resolution))))
    half_widths = np.maximum(stopbands, rates / 2) - cutoffs
    sizes = rates + MARGIN * 2
    sizes[-2:] = resolution
    channels = np.rint(np.minimum(cbase / 2 / cutoffs, cmax))
    channels[-1] = img_channels
    sides = [
        Side(int(rates[i]), float(cutoffs[i]), float(half_widths[i]), int(sizes[i]), int(channels[i]))
        for i in range(LAYERS + 1)
    ]
    specs = []
    for index, after in enumerate(sides):
        torgb, critical = index == LAYERS, index >= LAYERS - CRITICAL
        specs.append(
            LayerSpec(
                name=f"L{index}_{after.size}_{after.channels}",
                before=sides[max(index - 1, 0)],
                after=after,
                kernel=1 if torgb else kernel,
                torgb=torgb,
                critical=critical,
                radial=radial and not critical,
                half=after.rate << half > resolution,
            )
        )
    return specs


def filtered_leaky_relu(x: Tensor, up: Plan, down: Plan, clamp: float | None, slope: float = SLOPE) -> Tensor:
    """Raise the rate, bend, clamp and lower the rate. The gain of the bend is part of the plan `up`."""
    return resample(leaky_relu(resample(x, up), 1.0, clamp, slope), down)


Bend = Callable[[Tensor, Plan, Plan, float | None], Tensor]


class SynthesisLayer(Averaging):
    """A modulated convolution whose output is bent at a higher sampling rate, so that nothing aliases."""

    statistic = "magnitude_ema"
    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, spec: LayerSpec, w_dim: int, decay: float, clamp: float | None) -> None:
        super().__init__()
        self.spec, self.decay, self.clamp = spec, decay, clamp
        before, after = spec.before, spec.after
        self.affine = FullyConnected(w_dim, before.channels, stored_bias=1)
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, spec.kernel, spec.kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        rate = spec.working_rate
        up = lowpass_filter(spec.up_taps, before.cutoff, before.half_width * 2, rate)
        down = lowpass_filter(spec.down_taps, after.cutoff, after.half_width * 2, rate, spec.radial)
        self.register_buffer("up_filter", up)
        self.register_buffer("down_filter", down)
        self._factors = FilterFactors(), FilterFactors()
        self.bend: Bend = filtered_leaky_relu

    def forward(self, x: Tensor, w: Tensor, update_emas: bool) -> Tensor:
        """x (b, i, h, w) in the precision to compute in."""
        if update_emas:
            self.observe(x.detach().to(w.dtype).square().mean(), len(x))
        input_gain = self.magnitude_ema.rsqrt()
        styles = self.affine(w)
        if self.spec.torgb:
            scale = 1 / math.sqrt(self.spec.before.channels * self.spec.kernel**2)
            return self._to_colours(x, styles * (scale * input_gain))
        # the scale of weights and of styles cancels in the demodulation; unit scale keeps half precision in range
        weight = self.weight * self.weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
        styles = styles * styles.square().mean(1, keepdim=True).rsqrt()
        weight, styles = bounded(weight, styles, x.dtype)
        scales = demodulation(weight, styles) * input_gain
        y = modulated_conv2d(x, weight, styles, scales, padding=self.spec.kernel - 1)
        y = y + self.bias.to(y.dtype)[:, None, None]
        return self.bend(y, *self.plans(y), self.clamp)

    def _to_colours(self, x: Tensor, styles: Tensor) -> Tensor:
        y = modulated_conv2d(x, self.weight, styles, None) + self.bias.to(x.dtype)[:, None, None]
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)

    def plans(self, y: Tensor) -> tuple[Plan, Plan]:
        """Up and down, for images of the size that the convolution gives."""
        spec = self.spec
        up_factors, down_factors = self._factors[0].of(self.up_filter), self._factors[1].of(self.down_filter)
        gain = spec.up**2 * GAIN  # the leaky ReLU passes a positive factor through
        up = plan_resample(
            up_factors, (y.shape[2], y.shape[3]), up=spec.up, padding=(*spec.padding, *spec.padding), gain=gain
        )
        return up, plan_resample(down_factors, up.out_size, down=spec.down)


class SynthesisNetwork(nn.Module):
    """ws (b, 16, w_dim) -> images (b, img_channels, resolution, resolution).

    `radial` is R: kernels of one pixel and radial filters, meant for twice the usual cbase and cmax.
    """

    def __init__(
        self,
        w_dim: int,
        resolution: int,
        img_channels: int = 3,
        *,
        cbase: int = 32768,
        cmax: int = 512,
        radial: bool = False,
        magnitude_decay: float = 0.999,
        clamp: float | None = 256.0,
        half: HalfPrecision = HalfPrecision(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.precision, self.num_ws = half, LAYERS + 2
        specs = schedule(resolution, img_channels, cbase, cmax, 1 if radial else 3, radial, half.resolutions)
        self.layer_names = [spec.name for spec in specs]
        start = specs[0].before
        self.input = FourierInput(w_dim, start.channels, start.size, start.rate, start.cutoff)
        for spec in specs:
            self.add_module(spec.name, SynthesisLayer(spec, w_dim, magnitude_decay, clamp))

    def forward(self, ws: Tensor, *, update_emas: bool = False, force_fp32: bool = False) -> Tensor:
        half = self.precision.dtype_on(ws.device, force_fp32)
        first, *others = ws.unbind(1)
        x = self.input(first)
        for name, w in zip(self.layer_names, others, strict=True):
            layer = self.get_submodule(name)
            assert isinstance(layer, SynthesisLayer)
            x = layer(x.to(half if half is not None and layer.spec.half else ws.dtype), w, update_emas)
        images: Tensor = x.to(ws.dtype) * OUTPUT_SCALE
        return images
