"""The filtered leaky ReLU as one function, which keeps nothing but what came in; by Triton, for half precision.

Step by step (`stylegan3.filtered_leaky_relu`) the image at the high rate is written and read several times, and kept
until the backward pass. Here a tile of it never leaves the chip, and the backward pass makes it again. Filters of one
pair of passes alone are fused: StyleGAN3-R's radial ones are sums of several.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.models.gan.filtering import AxisPlan, Plan, band
from lora_trainer.models.gan.leaky_relu import SLOPE
from lora_trainer.models.gan.stylegan3 import SynthesisLayer, filtered_leaky_relu

MIDDLE = 64  # samples of a tile's side at the high rate
LEAST = 16  # of a side of a product
IMAGES = 8  # that a program works on, one after the other
WARPS = 8  # of a program; with four the backward pass runs out of registers
UNBOUND = 3.0e38
HALVES = (torch.float16, torch.bfloat16)
CAPABILITY = (8, 0)  # of the card: Triton multiplies by tensor cores from Ampere on
FURTHEST = 0.05  # from the composition, as a share; rounding turns some signs, which gives up to 0.02


def use_fused_filtering(synthesis: nn.Module, device: torch.device, dtype: torch.dtype) -> str | None:
    """Have the layers of a StyleGAN3 that compute in half precision bend in one go; says why where none does.

    Each is tried first, against the composition.
    """
    if (reason := _missing(device)) is not None:
        return reason
    layers = [layer for layer in synthesis.modules() if isinstance(layer, SynthesisLayer) and _suits(layer, dtype)]
    if not layers:
        return "no layer of this network computes in half precision with filters of one pair of passes"
    try:
        misfits = [misfit for layer in layers for misfit in _misfits(layer, device, dtype)]
    except Exception as error:  # whatever a compiler, a driver or a card may raise
        return f"Triton fails here ({type(error).__name__}: {_first_and_last_line(str(error))})"
    if wrong := [misfit for misfit in misfits if not misfit < FURTHEST]:
        return f"Triton's result is off by {wrong[0]:.1%} here"
    for layer in layers:
        layer.bend = fused_filtered_leaky_relu
    return None


def _missing(device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"it is for CUDA, and the device is {device.type}"
    if torch.cuda.get_device_capability(device) < CAPABILITY:
        return "it needs a card of the Ampere generation or later"
    return None if find_spec("triton") else "the package triton is not installed"


def _suits(layer: SynthesisLayer, dtype: torch.dtype) -> bool:
    return layer.spec.half and not layer.spec.torgb and is_fusible(dtype, *layer.plans(_example(layer)))


def _example(layer: SynthesisLayer) -> Tensor:
    """Like what the layer bends, two images of one channel."""
    side = layer.spec.before.size + layer.spec.kernel - 1
    return torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(0))


def _first_and_last_line(text: str) -> str:
    """Compilers begin with the place and end with the reason."""
    lines = text.strip().splitlines() or [""]
    return lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1].strip()}"


def _misfits(layer: SynthesisLayer, device: torch.device, dtype: torch.dtype) -> list[float]:
    """Of result and gradient, the distance as a share of the composition's in single precision."""
    x = _example(layer).to(device)
    up, down = layer.plans(x)
    found: list[Tensor] = []
    wanted: list[Tensor] = []
    for bend, form, into in ((fused_filtered_leaky_relu, dtype, found), (filtered_leaky_relu, torch.float32, wanted)):
        given = x.to(form).requires_grad_(True)
        y = bend(given, up, down, layer.clamp)
        into += [y.detach().float(), torch.autograd.grad(y, given, torch.ones_like(y))[0].float()]
    return [float((one - other).norm() / other.norm()) for one, other in zip(found, wanted, strict=True)]


@dataclass(frozen=True)
class Leg:
    """The first pass along one axis for the middle samples of a tile: sample `first + tile * stride` is the first of
    `length` that it reads."""

    plan: AxisPlan
    first: int
    stride: int
    length: int


@dataclass(frozen=True)
class Tiling:
    """Along one axis: tiles of `step` results, of which tile 0 has its middle begin at sample `middle`."""

    second: AxisPlan
    step: int
    middle: int

    @staticmethod
    @lru_cache(maxsize=1024)
    def of(second: AxisPlan, *firsts: AxisPlan) -> Tiling | None:
        """None where no tile fits: the next one must begin at the same phase of every first pass."""
        step = (MIDDLE - len(second.taps)) // second.down + 1
        while step > 0 and any(step * second.down % first.up for first in firsts):
            step -= 1
        fits = second.up == 1 and step > 0 and all(first.down == 1 for first in firsts)
        return Tiling(second, step, -second.front) if fits else None

    def leg(self, plan: AxisPlan) -> Leg:
        taps, last = len(plan.taps), self.middle + MIDDLE - 1
        first = -((plan.front - self.middle) // plan.up)
        end = (last + taps - 1 - plan.front) // plan.up
        return Leg(plan, first, self.step * self.second.down // plan.up, _power(end - first + 1))

    @property
    def side(self) -> int:
        return _power(self.step)

    @property
    def tiles(self) -> int:
        return -(-self.second.out_size // self.step)


def is_fusible(dtype: torch.dtype, up: Plan, down: Plan) -> bool:
    """Half precision, one pair of passes up and one down that does not pad, and a tile of them that fits."""
    if dtype not in HALVES or len(up.pairs) != 1 or len(down.pairs) != 1:
        return False
    for plan in (up, down):
        vertical, horizontal = plan.pairs[0]
        if _shape(vertical) != _shape(horizontal):
            return False
    if any(axis.front or (axis.out_size - 1) * axis.down + len(axis.taps) > axis.in_size for axis in down.pairs[0]):
        return False  # it would read beyond the image at the high rate, which a tile does not know to be zero there
    raised, lowered = up.pairs[0][0], down.pairs[0][0]
    return bool(Tiling.of(lowered, raised) and Tiling.of(raised.adjoint(), lowered.adjoint(), raised))


def _shape(plan: AxisPlan) -> tuple[int, int, int]:
    """Which tiles go with it."""
    return len(plan.taps), plan.up, plan.down


def fused_filtered_leaky_relu(x: Tensor, up: Plan, down: Plan, clamp: float | None, slope: float = SLOPE) -> Tensor:
    """(..., h, w) -> (..., h', w'), equal to the composition up to rounding, which gives the second derivative.

    What is not in half precision goes the composition's way.
    """
    if x.dtype not in HALVES:
        return filtered_leaky_relu(x, up, down, clamp, slope)
    result: Tensor = _Fused.apply(x, up, down, clamp, slope)  # type: ignore[no-untyped-call]
    return result


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Plan, down: Plan, clamp: float | None, slope: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.how = up, down, clamp, slope
        return _bend(x.contiguous(), up, down, clamp, slope)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be derived once more
            (of_x,) = torch.autograd.grad(filtered_leaky_relu(x, *ctx.how), x, gradients[0], create_graph=True)
        else:
            of_x = _bend_back(gradients[0].contiguous(), x.contiguous(), *ctx.how)
        return of_x, None, None, None, None


def _bend(x: Tensor, up: Plan, down: Plan, clamp: float | None, slope: float) -> Tensor:
    from lora_trainer.models.gan.filtering_kernels import bend_kernel

    y = x.new_empty(*x.shape[:-2], *down.out_size)
    first, tilings = up.pairs[0], _tilings(down, up)
    blocks = _Blocks(tilings, x)
    legs, length = blocks.legs(first)
    with _device_of(x):
        bend_kernel[blocks.grid](
            x, y, *blocks.raising(legs, length), *blocks.lowering(),
            blocks.images, *x.shape[-2:], *y.shape[-2:], tilings[1].tiles, legs[0].first, legs[1].first,
            slope, UNBOUND if clamp is None else clamp,
            stride=legs[0].stride, step=tilings[0].step, reads=length, middle=MIDDLE,
            writes=tilings[0].side, images=IMAGES, num_warps=WARPS,
        )  # fmt: skip
    return y


def _bend_back(of_y: Tensor, x: Tensor, up: Plan, down: Plan, clamp: float | None, slope: float) -> Tensor:
    from lora_trainer.models.gan.filtering_kernels import bend_back_kernel

    of_x = torch.empty_like(x)
    first, tilings = down.adjoint().pairs[0], _tilings(up.adjoint(), down.adjoint(), up)
    blocks = _Blocks(tilings, x)
    (legs, length), (again, length_again) = blocks.legs(first), blocks.legs(up.pairs[0])
    with _device_of(x):
        bend_back_kernel[blocks.grid](
            of_y, x, of_x, *blocks.raising(legs, length), *blocks.lowering(), *blocks.raising(again, length_again),
            blocks.images, *of_y.shape[-2:], *x.shape[-2:], tilings[1].tiles,
            legs[0].first, legs[1].first, again[0].first, again[1].first, slope, UNBOUND if clamp is None else clamp,
            stride=legs[0].stride, again_stride=again[0].stride, step=tilings[0].step,
            reads=length, reads_again=length_again, middle=MIDDLE, writes=tilings[0].side,
            images=IMAGES, num_warps=WARPS,
        )  # fmt: skip
    return of_x


def _device_of(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the device that is chosen, wherever the images lie."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


@dataclass(frozen=True)
class _Blocks:
    """What a kernel is given beside images: blocks of the banded matrices in the images' format, and the grid."""

    tilings: tuple[Tiling, Tiling]  # vertical, horizontal
    like: Tensor

    @property
    def images(self) -> int:
        return self.like.shape[:-2].numel()

    @property
    def grid(self) -> tuple[int, int]:
        vertical, horizontal = self.tilings
        return vertical.tiles * horizontal.tiles, -(-self.images // IMAGES)

    def legs(self, plans: tuple[AxisPlan, AxisPlan]) -> tuple[tuple[Leg, Leg], int]:
        """Those of both axes, and how many samples a tile reads along either."""
        vertical, horizontal = (tiling.leg(plan) for tiling, plan in zip(self.tilings, plans, strict=True))
        return (vertical, horizontal), max(vertical.length, horizontal.length)

    def raising(self, legs: tuple[Leg, Leg], length: int) -> tuple[Tensor, Tensor]:
        """(middle, length) for the rows, and (length, middle) for the columns."""
        left, right = (
            _block(leg.plan, tiling.middle, MIDDLE, leg.first, length, turned, self.like.dtype, self.like.device)
            for leg, tiling, turned in zip(legs, self.tilings, (False, True), strict=True)
        )
        return left, right

    def lowering(self) -> tuple[Tensor, Tensor]:
        """(writes, middle) for the rows, and (middle, writes) for the columns."""
        left, right = (
            _block(tiling.second, 0, tiling.side, tiling.middle, MIDDLE, turned, self.like.dtype, self.like.device)
            for tiling, turned in zip(self.tilings, (False, True), strict=True)
        )
        return left, right


@lru_cache(maxsize=512)
def _block(
    plan: AxisPlan, first_output: int, outputs: int, first_input: int, inputs: int,
    turned: bool, dtype: torch.dtype, device: torch.device,
) -> Tensor:  # fmt: skip
    with torch.inference_mode(False):
        rows = torch.arange(first_output, first_output + outputs, device="cpu")
        columns = torch.arange(first_input, first_input + inputs, device="cpu")
        block = band(plan, rows, columns)
        return (block.t() if turned else block).contiguous().to(device, dtype)


def _tilings(second: Plan, *firsts: Plan) -> tuple[Tiling, Tiling]:
    vertical, horizontal = (
        Tiling.of(lowered, *raised)
        for lowered, *raised in zip(second.pairs[0], *(first.pairs[0] for first in firsts), strict=True)
    )
    assert vertical is not None
    assert horizontal is not None
    return vertical, horizontal


def _power(samples: int) -> int:
    return max(LEAST, 1 << (samples - 1).bit_length())
