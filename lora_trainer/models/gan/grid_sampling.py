"""Bilinear sampling of images at given places, with derivatives of any order by the images.

PyTorch's own has no second derivative. Sampling is linear in the image, so the derivative of its gradient by what comes
from above is sampling again.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_BILINEAR, _ZEROS = 0, 0  # as PyTorch numbers its modes


def sample_bilinear(images: Tensor, grid: Tensor) -> Tensor:
    """images (b, c, h, w), grid (b, h', w', 2) of x, y in -1..1 from edge to edge, zeros outside -> (b, c, h', w')."""
    if torch.is_grad_enabled() and images.requires_grad:
        result: Tensor = _Sample.apply(images, grid)  # type: ignore[no-untyped-call]
        return result
    return _sample(images, grid)


def _sample(images: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = images.shape
        return _sample(images, grid)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        spread: Tensor = _Spread.apply(gradients[0], grid, ctx.shape)  # type: ignore[no-untyped-call]
        return spread, None


class _Spread(torch.autograd.Function):
    """The transpose of sampling: adds each value to the pixels that it was mixed from."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        images = gradient.new_zeros(()).expand(shape)  # only their shape counts
        spread: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            gradient.contiguous(), images, grid, _BILINEAR, _ZEROS, False, [True, False]
        )[0]
        return spread

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return sample_bilinear(gradients[0], grid), None, None
