"""Losses that compare spectra instead of pixels.

Letters: b batch, c channels, h w pixels. Pictures are (b, c, h, w) from 0 to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.losses.full_precision import full_precision
from lora_trainer.losses.pixel import per_sample

FOCAL_SCALE = 50.0  # as in traiNNer-redux, so that a weight near 1 is sensible


@full_precision
def focal_frequency_loss(
    output: Tensor,
    target: Tensor,
    alpha: float = 1.0,
    patch_factor: int = 1,
    ave_spectrum: bool = True,
    log_matrix: bool = False,
    batch_matrix: bool = False,
) -> Tensor:
    """(b,) 50 times the squared difference of the spectra, by frequency, the more the worse it is (Jiang et al. 2021).

    With ``ave_spectrum`` the batch's mean spectra are compared, and every sample gets that one loss.
    Raises Refusal when the sides are not multiples of ``patch_factor``.
    """
    apart = _spectrum(output, patch_factor) - _spectrum(target, patch_factor)  # (b, patches, c, h, w)
    if ave_spectrum:
        apart = apart.mean(0, keepdim=True)
    squares = apart.real.square() + apart.imag.square()
    weights = _focus(squares.detach(), alpha, log_matrix, batch_matrix)
    return FOCAL_SCALE * per_sample(weights * squares).expand(output.shape[0])


@full_precision
def fft_loss(output: Tensor, target: Tensor) -> Tensor:
    """(b,) mean absolute difference of the real and the imaginary parts of the spectra, which are not normalised."""
    apart = torch.fft.fft2(output - target)
    return per_sample(torch.view_as_real(apart).abs())


def _spectrum(image: Tensor, patch_factor: int) -> Tensor:
    batch, channels, height, width = image.shape
    if height % patch_factor or width % patch_factor:
        raise Refusal(
            f"patch_factor {patch_factor} does not divide crops of {height} x {width} px; write one that does"
        )
    rows, columns = height // patch_factor, width // patch_factor
    patches = image.reshape(batch, channels, patch_factor, rows, patch_factor, columns).permute(0, 2, 4, 1, 3, 5)
    spectrum: Tensor = torch.fft.fft2(patches.reshape(batch, -1, channels, rows, columns), norm="ortho")
    return spectrum


def _focus(squares: Tensor, alpha: float, log_matrix: bool, batch_matrix: bool) -> Tensor:
    """From 0 to 1; 0 everywhere where there is no difference at all."""
    weights = squares.sqrt() ** alpha
    if log_matrix:
        weights = (weights + 1).log()
    largest = weights.amax() if batch_matrix else weights.amax(dim=(-2, -1), keepdim=True)
    return torch.where(largest > 0, weights / torch.where(largest > 0, largest, 1.0), 0.0).clamp(0, 1)
