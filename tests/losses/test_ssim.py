"""SSIM and MS-SSIM against loops over numpy windows, and against piq where it defines the same."""

from __future__ import annotations

import numpy as np
import piq
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.losses.ssim import LEVEL_WEIGHTS, ms_ssim, mssim_loss, ssim, ssim_loss

OFFSETS = np.arange(11) - 5
WINDOW = np.exp(-(OFFSETS[:, None] ** 2 + OFFSETS**2) / (2 * 1.5**2))
WINDOW /= WINDOW.sum()
LUMA = np.array([0.299, 0.587, 0.114]).reshape(3, 1, 1)


def pictures(height: int, width: int, noise: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.rand(2, 3, height, width, dtype=torch.float64, generator=torch_generator("y"))
    change = torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch_generator("x"))
    return (y + noise * change).clamp(0, 1), y


def maps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luminance and structure of one plane."""
    if min(x.shape) < 11:
        x, y = np.pad(x, 5), np.pad(y, 5)
    views = [sliding_window_view(plane, (11, 11)) for plane in (x, y)]
    mean_x, mean_y = (np.einsum("hwij,ij", view, WINDOW) for view in views)
    xx, yy = (np.einsum("hwij,ij", view**2, WINDOW) for view in views)
    xy = np.einsum("hwij,ij", views[0] * views[1], WINDOW)
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    structure = (2 * (xy - mean_x * mean_y) + 9e-4) / (xx - mean_x**2 + yy - mean_y**2 + 9e-4)
    return luminance, structure


def halved(plane: np.ndarray) -> np.ndarray:
    plane = np.pad(plane, [(side % 2, side % 2) for side in plane.shape])
    height, width = (side // 2 * 2 for side in plane.shape)
    return plane[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))


def test_ssim_against_numpy_and_piq() -> None:
    x, y = pictures(17, 23)
    expected = [np.mean([np.prod(maps(p, q), axis=0).mean() for p, q in zip(*pair, strict=True)]) for pair in
                zip(x.numpy(), y.numpy(), strict=True)]  # fmt: skip
    np.testing.assert_allclose(ssim(x, y), expected, rtol=1e-9)
    theirs = piq.ssim(x, y, kernel_size=11, kernel_sigma=1.5, reduction="none", downsample=False)
    np.testing.assert_allclose(ssim(x, y), theirs, rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(64, 48), (45, 61)])
@pytest.mark.parametrize("luminance", [False, True])
def test_mssim_loss_is_of_the_luma(height: int, width: int, luminance: bool) -> None:
    x, y = pictures(height, width)
    expected = []
    for p, q in zip((x.numpy() * LUMA).sum(1), (y.numpy() * LUMA).sum(1), strict=True):
        value = 1.0
        for level, weight in enumerate(LEVEL_WEIGHTS):
            if level:
                p, q = halved(p), halved(q)
            light, structure = maps(p, q)
            structure = np.maximum(structure, 0)
            value *= ((light * structure if luminance and level == 4 else structure).mean()) ** weight
        expected.append(1 - value)
    assert 0.01 < min(expected) < 0.9
    np.testing.assert_allclose(mssim_loss(x, y, include_luminance=luminance), expected, rtol=1e-9)


def test_mean_instead_of_product() -> None:
    x, y = pictures(32, 32)
    assert (ms_ssim(x, y, is_prod=False) >= ms_ssim(x, y)).all()  # the weighted means of arithmetic and geometry
    torch.testing.assert_close(ms_ssim(x, x, is_prod=False), torch.ones(2, dtype=torch.float64))


def test_ssim_loss_falls_when_pictures_get_closer() -> None:
    near, far = pictures(32, 32, noise=0.05), pictures(32, 32, noise=0.4)
    assert (ssim_loss(*near) < ssim_loss(*far)).all()
    torch.testing.assert_close(ssim_loss(near[1], near[1]), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_ssim_loss_options() -> None:
    x, y = pictures(24, 24)
    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(ssim_loss(x, y, crop_border=3), ssim_loss(x[inner], y[inner]))
    colours = ssim_loss(x, y, test_y_channel=False)
    torch.testing.assert_close(colours, 1 - ssim(x, y, clamped=True))
    assert not torch.allclose(colours, ssim_loss(x, y))
    assert not torch.allclose(ssim_loss(x, y, color_space="ycbcr"), ssim_loss(x, y))
    with pytest.raises(Refusal, match=r"^there is no color_space 'lab'; write one of yiq, ycbcr, lhm$"):
        ssim_loss(x, y, color_space="lab")


def test_downsample_averages_large_pictures() -> None:
    x, y = pictures(512, 530)
    small = [torch.nn.functional.avg_pool2d(image, 2) for image in (x, y)]
    torch.testing.assert_close(ssim_loss(x, y, downsample=True), ssim_loss(*small))


@pytest.mark.parametrize("loss", [ssim_loss, mssim_loss])
def test_gradients_are_finite_for_opposite_flat_and_equal_pictures(loss) -> None:
    _, y = pictures(32, 32)
    for start, target in ((1 - y, y), (torch.zeros_like(y), torch.ones_like(y)), (y, y)):
        x = start.float().requires_grad_()
        value = loss(x, target.float())
        value.sum().backward()
        assert value.isfinite().all()
        assert x.grad is not None
        assert x.grad.isfinite().all()


def test_opposite_pictures_have_the_largest_loss() -> None:
    _, y = pictures(16, 16)
    torch.testing.assert_close(mssim_loss(1 - y, y), torch.ones(2, dtype=torch.float64), rtol=0, atol=0.2)
