"""PSNR and SSIM of the luma against numpy and, where it is installed, pyiqa; the loss has a gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.losses.restoration_quality import psnr_y, ssim_y, ssim_y_loss

OFFSETS = np.arange(11) - 5
WINDOW = np.exp(-(OFFSETS[:, None] ** 2 + OFFSETS**2) / (2 * 1.5**2))
WINDOW /= WINDOW.sum()


def pictures(height: int = 33, width: int = 42, noise: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.rand(3, 3, height, width, generator=torch_generator("target"))
    change = torch.randn(target.shape, generator=torch_generator("change"))
    strength = noise * torch.tensor([0.1, 1, 20]).view(3, 1, 1, 1)  # the last one has negative structure
    return (target + strength * change).clamp(0, 1), target


def luma(image: torch.Tensor) -> np.ndarray:
    """(b, h, w) of 255."""
    return np.tensordot([65.481, 128.553, 24.966], image.double().numpy(), (0, 1)) + 16


def windowed(x: np.ndarray, y: np.ndarray, data_range: float, least: float) -> float:
    a, b = sliding_window_view(x, (11, 11)), sliding_window_view(y, (11, 11))
    mean_a, mean_b = np.einsum("hwij,ij", a, WINDOW), np.einsum("hwij,ij", b, WINDOW)
    var_a = np.einsum("hwij,ij", a**2, WINDOW) - mean_a**2
    var_b = np.einsum("hwij,ij", b**2, WINDOW) - mean_b**2
    both = np.einsum("hwij,ij", a * b, WINDOW) - mean_a * mean_b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    structure = np.maximum((2 * both + c2) / (var_a + var_b + c2), least)
    return float(((2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * structure).mean())


def test_psnr_is_of_the_unrounded_luma_and_ends_at_80() -> None:
    image, target = pictures()
    squares = ((luma(image) - luma(target)) ** 2).mean((1, 2)) / 255**2
    np.testing.assert_allclose(psnr_y(image, target), -10 * np.log10(squares + 1e-8), rtol=1e-12)
    assert psnr_y(target, target).tolist() == pytest.approx([80] * 3)


def test_ssim_is_of_the_rounded_luma() -> None:
    image, target = pictures()
    expected = [windowed(*pair, 255, 0) for pair in zip(luma(image).round(), luma(target).round(), strict=True)]
    np.testing.assert_allclose(ssim_y(image, target), expected, rtol=1e-9)
    assert expected[2] > windowed(luma(image[2:])[0].round(), luma(target[2:])[0].round(), 255, -1) + 0.002
    assert ssim_y(target, target).tolist() == pytest.approx([1] * 3)


def test_both_have_the_values_of_pyiqa() -> None:
    """Noted from pyiqa 0.1.16, with test_y_channel and the colour space ycbcr."""
    rows = torch.arange(40, dtype=torch.float64).view(1, 1, -1, 1)
    columns = torch.arange(56, dtype=torch.float64).view(1, 1, 1, -1)
    channels = torch.arange(1, 4, dtype=torch.float64).view(1, 3, 1, 1)
    target = 0.5 + 0.5 * torch.sin(0.11 * channels * rows + 0.07 * columns**2 / 56 * channels)
    image = (target + 0.2 * torch.sin(1.3 * rows * channels + 0.9 * columns)).clamp(0, 1)
    assert psnr_y(image, target).item() == pytest.approx(22.782727100009772, rel=1e-6)
    assert ssim_y(image, target).item() == pytest.approx(0.48303020760034054, rel=1e-6)


def test_both_equal_an_installed_pyiqa() -> None:
    archs = pytest.importorskip("pyiqa.archs.psnr_arch")
    from pyiqa.archs.ssim_arch import SSIM

    for size in ((33, 42), (300, 270)):
        image, target = pictures(*size)
        for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 2e-5)):
            x, y = image.to(dtype), target.to(dtype)
            theirs = archs.psnr(x, y, test_y_channel=True, color_space="ycbcr")
            torch.testing.assert_close(psnr_y(x, y), theirs.double(), rtol=tolerance, atol=0)
            theirs = SSIM(test_y_channel=True, color_space="ycbcr")(x, y)
            torch.testing.assert_close(ssim_y(x, y), theirs.double(), rtol=tolerance, atol=0)


def test_what_goes_beyond_0_and_1_is_clamped_where_it_is_measured() -> None:
    image, target = pictures()
    beyond = torch.where(image >= 1, image + 0.5, torch.where(image <= 0, image - 0.5, image))
    assert not torch.equal(beyond, image)
    assert torch.equal(psnr_y(beyond, target), psnr_y(image, target))
    assert torch.equal(ssim_y(beyond, target), ssim_y(image, target))
    assert (ssim_y_loss(beyond, target) > ssim_y_loss(image, target))[2]


def test_the_loss_is_one_minus_the_structural_similarity() -> None:
    image, target = pictures()
    expected = [1 - windowed(*pair, 1, -1) for pair in zip(luma(image) / 255, luma(target) / 255, strict=True)]
    np.testing.assert_allclose(ssim_y_loss(image.double(), target.double()), expected, rtol=1e-9)
    zeros = torch.zeros(3)
    torch.testing.assert_close(ssim_y_loss(target, target), zeros, rtol=0, atol=1e-5)
    near = ssim_y_loss(image, target)[:2].double()  # without negative structure it is what is measured, unrounded
    torch.testing.assert_close(near, 1 - ssim_y(image, target)[:2], rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_has_a_gradient_that_leads_to_the_target(dtype: torch.dtype) -> None:
    image, target = pictures(noise=0.05)
    output = image.to(dtype).requires_grad_()
    before = ssim_y_loss(output, target.to(dtype))
    (gradient,) = torch.autograd.grad(before.sum(), output)
    assert gradient.isfinite().all()
    assert (gradient.float().flatten(1).norm(dim=1) > 1e-4).all()
    closer = image - 0.02 * gradient.float() / gradient.float().abs().amax(dim=(1, 2, 3), keepdim=True)
    assert (ssim_y_loss(closer, target) < ssim_y_loss(image, target)).all()


def test_opposite_pictures_have_a_gradient_too() -> None:
    _, target = pictures()
    output = (1 - target).requires_grad_()
    assert (ssim_y_loss(output, target) > 1.5).all()
    ssim_y_loss(output, target).sum().backward()
    assert output.grad is not None
    assert (output.grad.flatten(1).norm(dim=1) > 1e-3).all()


def test_sizes_that_cannot_be_measured() -> None:
    image, target = pictures(10, 40)
    for measure in (ssim_y, ssim_y_loss):
        with pytest.raises(Refusal, match=r"^a picture of 10 x 40 px \(height x width\) is too small for SSIM"):
            measure(image, target)
    for measure in (psnr_y, ssim_y, ssim_y_loss):
        with pytest.raises(ValueError, match=r"shape \(3, 3, 33, 42\) is measured against \(3, 3, 10, 40\)"):
            measure(pictures()[0], target)
