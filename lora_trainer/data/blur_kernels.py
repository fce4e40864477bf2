"""The blurs of degradation: Gaussian, generalized Gaussian, plateau and sinc kernels, and filtering with them.

Formulas: Liu et al. 2014 and Wang et al. 2021 (Real-ESRGAN, section 3.2): with q = x' S^-1 x, a generalized Gaussian is
exp(-q^beta / 2) and a plateau is 1 / (1 + q^beta); S has the variances sigma_x^2 and sigma_y^2, turned by an angle. The
sinc kernel is the ideal circular low pass, c J1(c r) / (2 pi r), which rings at edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import j1
from torch import Tensor
from torch.nn import functional as F

from lora_trainer.data.resize import to_device

KINDS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
SINC = "sinc"
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Blur:
    """One blur in numbers. Sigmas are pixels, the angle is in radians, ``cutoff`` in radians per pixel (sinc only)."""

    kind: str
    side_px: int
    sigma_x: float = 1.0
    sigma_y: float = 1.0
    angle: float = 0.0
    beta: float = 1.0
    cutoff: float = 0.0

    def kernel(self) -> Array:
        """(side, side) float64, which sums to 1. Rows are y."""
        if self.kind == SINC:
            return sinc_kernel(self.side_px, self.cutoff)
        q = _squared_distance(self.side_px, (self.sigma_x, self.sigma_y), self.angle)
        if self.kind.startswith("plateau"):
            return _normalised(1 / (1 + q**self.beta))
        return _normalised(np.exp(-0.5 * q**self.beta))

    def __str__(self) -> str:
        if self.kind == SINC:
            return f"sinc {self.cutoff:.2f}"
        across = "" if self.sigma_x == self.sigma_y else f"/{self.sigma_y:.2f}"
        return f"{self.kind} {self.sigma_x:.2f}{across}"


def sinc_kernel(side_px: int, cutoff: float) -> Array:
    """(side, side) the circular low pass for frequencies below ``cutoff`` in radians per pixel, 0 to pi."""
    x = np.arange(side_px, dtype=np.float64) - (side_px - 1) / 2
    radius = np.hypot(x[:, None], x[None, :])
    with np.errstate(divide="ignore", invalid="ignore"):
        values = cutoff * j1(cutoff * radius) / (2 * np.pi * radius)
    values[radius == 0] = cutoff**2 / (4 * np.pi)
    return _normalised(values)


def gaussian_line(side_px: int) -> Array:
    """(side,) the Gaussian that OpenCV takes for a side when no sigma is given; it sums to 1."""
    sigma = 0.3 * ((side_px - 1) * 0.5 - 1) + 0.8
    x = np.arange(side_px, dtype=np.float64) - (side_px - 1) / 2
    return _normalised(np.exp(-0.5 * (x / sigma) ** 2))


def stack_kernels(kernels: Sequence[Array]) -> Tensor:
    """(b, k, k) or (b, k) float32 on the CPU: kernels of odd sides, each with zeros around it up to the widest."""
    side = max(kernel.shape[-1] for kernel in kernels)
    stacked = np.zeros((len(kernels), *(side,) * kernels[0].ndim), np.float32)
    for target, kernel in zip(stacked, kernels, strict=True):
        start = (side - kernel.shape[-1]) // 2
        target[(slice(start, start + kernel.shape[-1]),) * kernel.ndim] = kernel
    return torch.from_numpy(stacked)


def apply_kernels(images: Tensor, kernels: Tensor) -> Tensor:
    """Images (b, c, h, w), each filtered by its own kernel of (b, rows, columns), odd sides; the border is reflected.

    The kernels may lie on the CPU. They are applied as they stand, not turned around.
    """
    b, c, h, w = images.shape
    kernels = to_device(kernels, images.device).to(images.dtype) if kernels.device != images.device else kernels
    rows, columns = kernels.shape[-2:]
    padded = reflected(images, (columns // 2, rows // 2))
    weight = kernels[:, None, None].expand(b, c, 1, rows, columns).reshape(b * c, 1, rows, columns)
    return F.conv2d(padded.reshape(1, b * c, *padded.shape[-2:]), weight, groups=b * c).view(b, c, h, w)


def reflected(images: Tensor, pad_px: tuple[int, int]) -> Tensor:
    """With (x, y) more pixels on each side, mirrored at the outermost pixel; also where a picture is smaller than that.

    PyTorch mirrors once, so a small picture is mirrored again and again.
    """
    x, y = pad_px
    height, width = images.shape[-2:]
    lone = (x if width == 1 else 0, y if height == 1 else 0)  # one pixel has nothing to mirror
    if any(lone):
        images = F.pad(images, (lone[0], lone[0], lone[1], lone[1]), mode="replicate")
        x, y = x - lone[0], y - lone[1]
    while x > 0 or y > 0:
        across, down = min(x, images.shape[-1] - 1), min(y, images.shape[-2] - 1)
        images = F.pad(images, (across, across, down, down), mode="reflect")
        x, y = x - across, y - down
    return images


def sharpened(images: Tensor, sides_px: Sequence[int], weight: float = 0.5, threshold: float = 10 / 255) -> Tensor:
    """An unsharp mask, (b, 3, h, w) 0 to 1, with a Gaussian of an odd side for each picture.

    Only where a picture differs from its blur by more than the threshold; the mask has soft edges (Real-ESRGAN's USM).
    """
    lines = to_device(stack_kernels([gaussian_line(side) for side in sides_px]), images.device)
    residual = images - _blurred(images, lines)
    mask = _blurred((residual.abs() > threshold).to(images.dtype), lines)
    return images + mask * ((images + weight * residual).clamp(0, 1) - images)


def _blurred(images: Tensor, lines: Tensor) -> Tensor:
    return apply_kernels(apply_kernels(images, lines[:, None, :]), lines[:, :, None])


def _squared_distance(side_px: int, sigmas: tuple[float, float], angle: float) -> Array:
    """(side, side): x' S^-1 x from the centre, where S = R diag(sigmas^2) R'."""
    x = np.arange(side_px, dtype=np.float64) - (side_px - 1) / 2
    along = x[None, :] * np.cos(angle) + x[:, None] * np.sin(angle)
    across = -x[None, :] * np.sin(angle) + x[:, None] * np.cos(angle)
    return np.asarray((along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2)


def _normalised(values: Array) -> Array:
    return np.asarray(values / values.sum())
