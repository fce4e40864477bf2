"""Raise, filter and lower the resolution of images in one go (upfirdn), as products with banded matrices.

Along one axis the whole operation - insert `up - 1` zeros after each sample, pad or crop, convolve, keep each
`down`-th sample - is a linear map whose matrix A has the filter in its band:
A[o, i] = f[o * down + n - 1 - p0 - i * up] for n taps f and p0 samples of padding in front. A product with it never
meets an inserted zero, its gradient is a product with the transpose, and it has derivatives of any order. Long axes are
cut into windows, each multiplied by one and the same small block, whose rows are the phases of the filter. A
two-dimensional filter is a sum of a few such pairs of passes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Taps: TypeAlias = tuple[float, ...]
Factors: TypeAlias = tuple[tuple[Taps, Taps], ...]  # (vertical, horizontal) pairs whose outer products sum to a filter
Padding: TypeAlias = tuple[int, int, int, int]  # left, right, top, bottom; negative numbers crop

DENSE_UP_TO = 192  # samples of the shorter side of a matrix, above which windows are faster on a CPU
WINDOW = 32  # least samples of a window on the side of the higher rate
SEPARABLE_FROM = 8  # taps, from which a filter is kept in one dimension
TOLERANCE = 3e-8  # what of the norm of a filter its factors may miss: half of what float32 rounds


@dataclass(frozen=True)
class AxisPlan:
    """The operation along one axis: `taps` are convolved (not correlated), `front` samples are padded in front."""

    taps: Taps
    in_size: int
    out_size: int
    up: int = 1
    down: int = 1
    front: int = 0

    def adjoint(self) -> AxisPlan:
        """The transposed map, which is of the same kind."""
        front = len(self.taps) - 1 - self.front
        return AxisPlan(self.taps[::-1], self.out_size, self.in_size, self.down, self.up, front)

    @property
    def is_nothing(self) -> bool:
        return self.taps == (1.0,) and self.up == self.down == 1 and not self.front and self.in_size == self.out_size


@dataclass(frozen=True)
class Plan:
    """The operation on images (..., h, w): a sum of separable passes."""

    pairs: tuple[tuple[AxisPlan, AxisPlan], ...]  # (vertical, horizontal)

    def adjoint(self) -> Plan:
        return Plan(tuple((vertical.adjoint(), horizontal.adjoint()) for vertical, horizontal in self.pairs))

    @property
    def out_size(self) -> tuple[int, int]:
        vertical, horizontal = self.pairs[0]
        return vertical.out_size, horizontal.out_size


def normalized_filter(taps: Sequence[float]) -> Tensor:
    """A list of taps as the buffer that the networks keep: of sum 1, and with few taps already two-dimensional."""
    line = torch.tensor(taps, dtype=torch.float32)
    line = line / line.sum()
    return line if len(taps) >= SEPARABLE_FROM else torch.outer(line, line)


def factors_of(filter: Tensor | None) -> Factors:
    """Separate a filter (n,) or (n, m) into as few passes as single precision needs; None is the identity.

    Reads the values, so on a GPU it waits: keep the answer (`FilterFactors`).
    """
    if filter is None:
        return (((1.0,), (1.0,)),)
    values = filter.detach().to("cpu", torch.float64)
    if values.ndim == 1:
        line = tuple(values.tolist())
        return ((line, line),)
    left, strengths, right = torch.linalg.svd(values)
    missed = strengths.square().flip(0).cumsum(0).flip(0).sqrt() / strengths.norm().clamp(min=1e-300)
    rank = max(1, int((missed > TOLERANCE).sum()))
    roots = strengths.sqrt()
    return tuple((tuple((left[:, r] * roots[r]).tolist()), tuple((right[r] * roots[r]).tolist())) for r in range(rank))


class FilterFactors:
    """The factors of a module's buffer, worked out anew only when the buffer is replaced or written to."""

    def __init__(self) -> None:
        self._key: tuple[int, int] | None = None
        self._buffer: Tensor | None = None
        self._factors: Factors = ()

    def of(self, buffer: Tensor | None) -> Factors:
        version = 0 if buffer is None or buffer.is_inference() else buffer._version
        if not self._factors or buffer is not self._buffer or self._key != (id(buffer), version):
            self._buffer, self._key, self._factors = buffer, (id(buffer), version), factors_of(buffer)
        return self._factors


def plan_resample(
    factors: Factors, size: tuple[int, int], *, up: int = 1, down: int = 1, padding: Padding = (0, 0, 0, 0),
    flip: bool = False, gain: float = 1.0,
) -> Plan:  # fmt: skip
    """Plan for images of `size` (h, w). With `flip` the filter is correlated instead of convolved.

    Raises ValueError where nothing would be left of the image.
    """
    sides = int(size[0]), int(size[1])  # tensors while an export traces the network, and then no keys of a cache
    return _plan(factors, sides, up, down, padding, flip, gain)


@lru_cache(maxsize=1024)
def _plan(
    factors: Factors, size: tuple[int, int], up: int, down: int, padding: Padding, flip: bool, gain: float
) -> Plan:
    left, right, top, bottom = padding
    root = math.sqrt(gain)

    def along(taps: Taps, samples: int, front: int, back: int) -> AxisPlan:
        left_over = samples * up + front + back - (len(taps) - 1)
        if left_over < 1:
            raise ValueError(f"{samples} samples with padding {front}, {back} are fewer than the {len(taps)} taps need")
        scaled = tuple(tap * root for tap in (taps[::-1] if flip else taps))
        return AxisPlan(scaled, samples, -(-left_over // down), up, down, front)

    return Plan(
        tuple((along(v, size[0], top, bottom), along(h, size[1], left, right)) for v, h in factors),
    )


def resample(x: Tensor, plan: Plan) -> Tensor:
    """(..., h, w) -> (..., h', w') of the plan; any number of derivatives."""
    if torch.is_grad_enabled() and x.requires_grad:
        result: Tensor = _Resample.apply(x, plan)  # type: ignore[no-untyped-call]
        return result
    return _resample(x, plan)


class _Resample(torch.autograd.Function):
    """Nothing is saved, and the gradient is the transposed operation, by the same fast way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: Plan) -> Tensor:
        ctx.plan = plan
        return _resample(x, plan)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return resample(gradients[0], ctx.plan.adjoint()), None


def _resample(x: Tensor, plan: Plan) -> Tensor:
    if len(plan.pairs) > 1 and all(_is_dense(each) for pair in plan.pairs for each in pair):
        left, right = _stacked(plan, x.dtype, x.device)
        passed = F.linear(x, right)  # (..., h, pairs * w')
        return torch.matmul(left, passed.view(*x.shape[:-2], left.shape[1], -1))
    result: Tensor | None = None
    for vertical, horizontal in plan.pairs:
        # the axis that shrinks goes first, so that the other has less to do
        if horizontal.out_size * vertical.in_size <= vertical.out_size * horizontal.in_size:
            part = _vertically(_horizontally(x, horizontal), vertical)
        else:
            part = _horizontally(_vertically(x, vertical), horizontal)
        result = part if result is None else result.add_(part)
    assert result is not None
    return result.clone() if result is x else result


def _horizontally(x: Tensor, plan: AxisPlan) -> Tensor:
    if plan.is_nothing:
        return x
    if _is_dense(plan):
        return F.linear(x, _matrix(plan, x.dtype, x.device))
    windows = _Windows.of(plan)
    cut = F.pad(x, windows.padding(plan)).unfold(-1, windows.length, windows.stride)
    product = F.linear(cut.contiguous(), _block(plan, x.dtype, x.device))  # (..., h, windows, samples)
    return product.flatten(-2)[..., : plan.out_size].contiguous()


def _vertically(x: Tensor, plan: AxisPlan) -> Tensor:
    if plan.is_nothing:
        return x
    if _is_dense(plan):
        return torch.matmul(_matrix(plan, x.dtype, x.device), x)
    windows = _Windows.of(plan)
    cut = F.pad(x, (0, 0, *windows.padding(plan))).unfold(-2, windows.length, windows.stride)
    product = torch.matmul(_block(plan, x.dtype, x.device), cut.transpose(-1, -2))  # (..., windows, samples, w)
    return product.flatten(-3, -2)[..., : plan.out_size, :].contiguous()


def _is_dense(plan: AxisPlan) -> bool:
    return min(plan.in_size, plan.out_size) <= DENSE_UP_TO


@dataclass(frozen=True)
class _Windows:
    """Windows of `length` input samples, `stride` apart, from sample `first` on; each gives `samples` outputs."""

    samples: int
    stride: int
    first: int
    length: int
    count: int

    @staticmethod
    @lru_cache(maxsize=1024)
    def of(plan: AxisPlan) -> _Windows:
        unit = plan.up // math.gcd(plan.up, plan.down)  # outputs after which the inputs begin at the same phase
        samples = unit * max(1, -(-WINDOW // (unit * max(1, plan.down // plan.up))))
        first = -(plan.front // plan.up)
        last = ((samples - 1) * plan.down + len(plan.taps) - 1 - plan.front) // plan.up
        stride = samples * plan.down // plan.up
        return _Windows(samples, stride, first, last - first + 1, -(-plan.out_size // samples))

    def padding(self, plan: AxisPlan) -> tuple[int, int]:
        return -self.first, self.first + (self.count - 1) * self.stride + self.length - plan.in_size


def band(plan: AxisPlan, outputs: Tensor, inputs: Tensor) -> Tensor:
    """The matrix's numbers for these samples, (outputs, inputs) in float64; samples may lie beyond the image."""
    taps = torch.tensor(plan.taps, dtype=torch.float64, device="cpu")
    index = outputs[:, None] * plan.down + len(taps) - 1 - plan.front - inputs[None, :] * plan.up
    inside = (index >= 0) & (index < len(taps))
    return torch.where(inside, taps[index.clamp(0, len(taps) - 1)], taps.new_zeros(()))


@lru_cache(maxsize=512)
def _matrix(plan: AxisPlan, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        outputs, inputs = (torch.arange(size, device="cpu") for size in (plan.out_size, plan.in_size))
        return band(plan, outputs, inputs).to(device, dtype)


@lru_cache(maxsize=128)
def _stacked(plan: Plan, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """All pairs' matrices as two, (h', h * pairs) and (pairs * w', w), so that one product sums over pairs."""
    with torch.inference_mode(False):
        vertical = torch.stack([_matrix(pair[0], dtype, device) for pair in plan.pairs], 2).flatten(1)
        return vertical, torch.cat([_matrix(pair[1], dtype, device) for pair in plan.pairs])


@lru_cache(maxsize=512)
def _block(plan: AxisPlan, dtype: torch.dtype, device: torch.device) -> Tensor:
    windows = _Windows.of(plan)
    with torch.inference_mode(False):
        inputs = torch.arange(windows.first, windows.first + windows.length, device="cpu")
        return band(plan, torch.arange(windows.samples, device="cpu"), inputs).to(device, dtype)


def up_padding(taps: int, up: int) -> tuple[int, int]:
    """What keeps an image in place while its resolution is raised."""
    return (taps + up - 1) // 2, (taps - up) // 2


def down_padding(taps: int, down: int) -> tuple[int, int]:
    """What keeps an image in place while its resolution is lowered; with `down` 1, while it is filtered."""
    return (taps - down + 1) // 2, (taps - down) // 2


def upsample(x: Tensor, factors: Factors, up: int = 2) -> Tensor:
    """(..., h, w) -> (..., h * up, w * up), as bright as before."""
    padding = (*up_padding(len(factors[0][1]), up), *up_padding(len(factors[0][0]), up))
    return resample(x, plan_resample(factors, _size(x), up=up, padding=padding, gain=up * up))


def downsample(x: Tensor, factors: Factors, down: int = 2) -> Tensor:
    """(..., h, w) -> (..., h / down, w / down); with `down` 1 the image is only filtered."""
    padding = (*down_padding(len(factors[0][1]), down), *down_padding(len(factors[0][0]), down))
    return resample(x, plan_resample(factors, _size(x), down=down, padding=padding))


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
