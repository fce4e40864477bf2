"""Spectral losses against numpy's Fourier transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.losses.frequency import fft_loss, focal_frequency_loss


def pictures(height: int = 12, width: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    size = (2, 2, 3, height, width)
    return torch.rand(size, dtype=torch.float64, generator=torch_generator("pictures")).unbind(0)


def focal(apart: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """Of differences of pictures (n, c, h, w), each with its own weights."""
    squares = np.abs(np.fft.fft2(apart, norm="ortho")) ** 2
    weights = np.sqrt(squares) ** alpha
    weights /= weights.max((2, 3), keepdims=True)
    return 50 * (weights * squares).mean((1, 2, 3))


def test_the_batch_has_one_mean_spectrum() -> None:
    x, y = pictures()
    apart = (x - y).numpy()
    expected = focal(apart.mean(0, keepdims=True))
    np.testing.assert_allclose(focal_frequency_loss(x, y), np.repeat(expected, 2), rtol=1e-9)
    np.testing.assert_allclose(focal_frequency_loss(x, y, ave_spectrum=False), focal(apart), rtol=1e-9)


def test_options() -> None:
    x, y = pictures()
    apart = (x - y).numpy()
    np.testing.assert_allclose(focal_frequency_loss(x, y, 0.5, ave_spectrum=False), focal(apart, 0.5), rtol=1e-9)
    quarters = [apart[..., top : top + 6, left : left + 5] for top in (0, 6) for left in (0, 5)]
    expected = np.mean([focal(quarter) for quarter in quarters], axis=0)
    np.testing.assert_allclose(focal_frequency_loss(x, y, patch_factor=2, ave_spectrum=False), expected, rtol=1e-9)
    squares = np.abs(np.fft.fft2(apart, norm="ortho")) ** 2
    logs = np.log(np.sqrt(squares) + 1)
    by_logs = 50 * (logs / logs.max() * squares).mean((1, 2, 3))
    found = focal_frequency_loss(x, y, ave_spectrum=False, log_matrix=True, batch_matrix=True)
    np.testing.assert_allclose(found, by_logs, rtol=1e-9)


def test_a_crop_that_does_not_divide_is_refused() -> None:
    with pytest.raises(Refusal, match=r"^patch_factor 5 does not divide crops of 12 x 10 px; write one that does$"):
        focal_frequency_loss(*pictures(), patch_factor=5)


def test_equal_pictures_have_no_loss_and_a_finite_gradient() -> None:
    _, y = pictures()
    x = y.float().requires_grad_()
    loss = focal_frequency_loss(x, y.float()) + fft_loss(x, y.float())
    loss.sum().backward()
    assert loss.tolist() == [0, 0]
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_fft_loss_is_of_real_and_imaginary_parts() -> None:
    x, y = pictures()
    spectra = np.fft.fft2(x.numpy()) - np.fft.fft2(y.numpy())
    expected = (np.abs(spectra.real) + np.abs(spectra.imag)).mean((1, 2, 3)) / 2
    np.testing.assert_allclose(fft_loss(x, y), expected, rtol=1e-9)


def test_pictures_in_channels_last_layout() -> None:
    x, y = pictures()
    last = [image.contiguous(memory_format=torch.channels_last) for image in (x, y)]
    torch.testing.assert_close(focal_frequency_loss(*last, patch_factor=2), focal_frequency_loss(x, y, patch_factor=2))
