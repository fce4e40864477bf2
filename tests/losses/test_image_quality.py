"""PSNR, SSIM and MS-SSIM of 8-bit pictures against numpy, and against piq."""

from __future__ import annotations

import numpy as np
import piq
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.losses import gaussian
from lora_trainer.losses.image_quality import ms_ssim, psnr, ssim

Y = np.array([65.481, 128.553, 24.966]).reshape(3, 1, 1)


def pictures(height: int = 30, width: int = 26) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.rand(2, 3, height, width, generator=torch_generator("target"))
    noise = 0.1 * torch.randn(target.shape, generator=torch_generator("noise"))
    return target + noise, target  # goes below 0 and above 1, as a network does


def eight_bit(image: torch.Tensor, crop: int, luma: bool) -> np.ndarray:
    """(b, c, h, w) float64 of 0 to 255."""
    pixels = np.clip(np.round(np.clip(image.numpy().astype(np.float64), 0, 1) * 255), 0, 255)
    pixels = pixels[..., crop : pixels.shape[-2] - crop, crop : pixels.shape[-1] - crop]
    return (pixels / 255 * Y).sum(1, keepdims=True) + 16 if luma else pixels


def plane_ssim(x: np.ndarray, y: np.ndarray) -> float:
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    a, b = sliding_window_view(x, (11, 11)), sliding_window_view(y, (11, 11))
    mean_a, mean_b = np.einsum("hwij,ij", a, window), np.einsum("hwij,ij", b, window)
    var_a = np.einsum("hwij,ij", a**2, window) - mean_a**2
    var_b = np.einsum("hwij,ij", b**2, window) - mean_b**2
    both = np.einsum("hwij,ij", a * b, window) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float((((2 * mean_a * mean_b + c1) * (2 * both + c2)) /
                  ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())  # fmt: skip


@pytest.mark.parametrize("crop", [0, 4])
@pytest.mark.parametrize("luma", [False, True])
def test_psnr_and_ssim(crop: int, luma: bool) -> None:
    image, target = pictures()
    x, y = (eight_bit(each, crop, luma) for each in (image, target))
    expected = 10 * np.log10(255**2 / ((x - y) ** 2).mean((1, 2, 3)))
    np.testing.assert_allclose(psnr(image, target, crop, luma), expected, rtol=1e-12)
    planes = [np.mean([plane_ssim(p, q) for p, q in zip(*pair, strict=True)]) for pair in zip(x, y, strict=True)]
    np.testing.assert_allclose(ssim(image, target, crop, luma), planes, rtol=1e-9)


def test_large_pictures_take_the_other_way_to_the_same_ssim(monkeypatch: pytest.MonkeyPatch) -> None:
    image, target = pictures()
    small = ssim(image, target)
    monkeypatch.setattr(gaussian, "PRODUCTS_UP_TO_PX", 0)
    torch.testing.assert_close(ssim(image, target), small, rtol=1e-12, atol=0)


def test_ms_ssim_of_one_channel_against_piq() -> None:
    image, target = pictures(176, 192)
    x, y = (torch.from_numpy(eight_bit(each, 0, True)) for each in (image, target))
    theirs = piq.multi_scale_ssim(x, y, data_range=255, reduction="none")
    np.testing.assert_allclose(ms_ssim(image, target, 0, True), theirs, rtol=1e-6)
    assert ms_ssim(target, target).tolist() == pytest.approx([1, 1])


def test_equal_pictures() -> None:
    _, target = pictures()
    almost = target + 1e-4 * (target - 0.5)  # less than one step of 8 bits, mostly
    assert psnr(target, target).tolist() == [float("inf")] * 2
    assert psnr(almost, target).min() > 60
    assert ssim(target, target).tolist() == pytest.approx([1, 1])


def test_results_are_float64_and_do_not_change_the_pictures() -> None:
    image, target = pictures()
    before = image.clone()
    assert psnr(image, target).dtype == torch.float64
    assert torch.equal(image, before)


def test_too_small_a_picture_is_refused_with_its_size() -> None:
    image, target = pictures(20, 16)
    with pytest.raises(Refusal, match=r"^a picture of 20 x 16 px \(height x width\) is too small to measure with"):
        ssim(image, target, crop_border=4)
    assert psnr(image, target, crop_border=4).shape == (2,)
    with pytest.raises(Refusal, match="crop_border 8; after the crop 1 px must be left"):
        psnr(image, target, crop_border=8)


def test_pictures_of_two_sizes_are_an_error() -> None:
    image, target = pictures()
    with pytest.raises(ValueError, match=r"shape \(2, 3, 30, 26\) is measured against \(2, 3, 30, 25\)"):
        psnr(image, target[..., 1:])
