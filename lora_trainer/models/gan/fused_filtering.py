"""The filtered leaky ReLU as one function, which keeps nothing but what came in; by Triton, for half precision.

Step by step (`stylegan3.filtered_leaky_relu`) the image at the high rate is written and read several times, and kept
until the backward pass. Here a tile of it never leaves the chip, and the backward pass makes it again. Filters of one
pair of passes alone are fused: StyleGAN3-R's radial ones are sums of several.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.models.gan.filtering import Plan
from lora_trainer.models.gan.filtering_tiles import MIDDLE, Blocks, has_tiles, tilings_of
from lora_trainer.models.gan.leaky_relu import SLOPE
from lora_trainer.models.gan.stylegan3 import SynthesisLayer, filtered_leaky_relu

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
    return dtype in HALVES and layer.spec.half and not layer.spec.torgb and has_tiles(*layer.plans(_example(layer)))


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
    first, tilings = up.pairs[0], tilings_of(down, up)
    blocks = Blocks(tilings, x, IMAGES)
    legs, length = blocks.legs(first)
    with _device_of(x):
        bend_kernel[blocks.grid](
            x, y, *blocks.raising(legs, length), *blocks.lowering(),
            blocks.count, *x.shape[-2:], *y.shape[-2:], tilings[1].tiles, legs[0].first, legs[1].first,
            slope, UNBOUND if clamp is None else clamp,
            stride=legs[0].stride, step=tilings[0].step, reads=length, middle=MIDDLE,
            writes=tilings[0].side, images=blocks.at_once, num_warps=WARPS,
        )  # fmt: skip
    return y


def _bend_back(of_y: Tensor, x: Tensor, up: Plan, down: Plan, clamp: float | None, slope: float) -> Tensor:
    from lora_trainer.models.gan.filtering_kernels import bend_back_kernel

    of_x = torch.empty_like(x)
    first, tilings = down.adjoint().pairs[0], tilings_of(up.adjoint(), down.adjoint(), up)
    blocks = Blocks(tilings, x, IMAGES)
    (legs, length), (again, length_again) = blocks.legs(first), blocks.legs(up.pairs[0])
    with _device_of(x):
        bend_back_kernel[blocks.grid](
            of_y, x, of_x, *blocks.raising(legs, length), *blocks.lowering(), *blocks.raising(again, length_again),
            blocks.count, *of_y.shape[-2:], *x.shape[-2:], tilings[1].tiles,
            legs[0].first, legs[1].first, again[0].first, again[1].first, slope, UNBOUND if clamp is None else clamp,
            stride=legs[0].stride, again_stride=again[0].stride, step=tilings[0].step,
            reads=length, reads_again=length_again, middle=MIDDLE, writes=tilings[0].side,
            images=blocks.at_once, num_warps=WARPS,
        )  # fmt: skip
    return of_x


def _device_of(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the device that is chosen, wherever the images lie."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
