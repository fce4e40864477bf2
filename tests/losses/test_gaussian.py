"""Separable windows against dense ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lora_trainer.draws import torch_generator
from lora_trainer.losses import gaussian
from lora_trainer.losses.gaussian import filtered, gaussian_window, trimmed


def dense(image: torch.Tensor, size: int, sigma: float, padding: int) -> torch.Tensor:
    offsets = torch.arange(size, dtype=image.dtype) - size // 2
    window = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * sigma**2))
    window = (window / window.sum()).expand(image.shape[1], 1, size, size)
    return F.conv2d(image, window, padding=padding, groups=image.shape[1])


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 4.0, 8.0])
@pytest.mark.parametrize("way", ["product", "sliding"])
def test_padded_equals_the_dense_window(sigma: float, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian, "PRODUCTS_UP_TO_PX", 256 if way == "product" else 0)
    image = torch.rand(2, 3, 37, 20, dtype=torch.float64, generator=torch_generator("image"))
    found = filtered(image, trimmed(gaussian_window(33, sigma)), padded=True)
    torch.testing.assert_close(found, dense(image, 33, sigma, 16), rtol=0, atol=1e-9)


@pytest.mark.parametrize("way", ["product", "sliding"])
def test_without_padding_only_whole_windows_count(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian, "PRODUCTS_UP_TO_PX", 256 if way == "product" else 0)
    image = torch.rand(1, 2, 15, 12, dtype=torch.float64, generator=torch_generator("image"))
    found = filtered(image, gaussian_window(11, 1.5), padded=False)
    assert found.shape == (1, 2, 5, 2)
    torch.testing.assert_close(found, dense(image, 11, 1.5, 0), rtol=1e-12, atol=0)


def test_window_by_hand() -> None:
    window = gaussian_window(3, 1.0)
    side = np.exp(-0.5)
    assert window == pytest.approx((side / (1 + 2 * side), 1 / (1 + 2 * side), side / (1 + 2 * side)))


def test_only_negligible_ends_are_cut() -> None:
    assert len(trimmed(gaussian_window(33, 0.5))) == 7
    assert len(trimmed(gaussian_window(33, 8.0))) == 33
    assert sum(trimmed(gaussian_window(33, 0.5))) == pytest.approx(1, abs=1e-12)


def test_a_window_first_used_in_inference_can_be_trained_with() -> None:
    window = gaussian_window(5, 0.77)
    image = torch.rand(1, 1, 9, 9, requires_grad=True, generator=torch_generator("image"))
    for limit in (256, 0):
        with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
            patch.setattr(gaussian, "PRODUCTS_UP_TO_PX", limit)
            filtered(torch.zeros(1, 1, 9, 9), window, padded=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gaussian, "PRODUCTS_UP_TO_PX", limit)
            filtered(image, window, padded=True).square().sum().backward()
    assert image.grad is not None
    assert image.grad.abs().min() > 0
