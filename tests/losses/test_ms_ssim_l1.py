"""MS-SSIM-L1 against dense 33 x 33 windows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lora_trainer.draws import torch_generator
from lora_trainer.losses.ms_ssim_l1 import ms_ssim_l1_loss

SIGMAS = (0.5, 1.0, 2.0, 4.0, 8.0)


def pictures(height: int = 41, width: int = 36) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth pictures, so that the product of fifteen factors is not near 0."""
    coarse = torch.rand(2, 3, 5, 5, dtype=torch.float64, generator=torch_generator("coarse"))
    y = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False).clamp(0, 1)
    noise = torch.randn(y.shape, dtype=torch.float64, generator=torch_generator("noise"))
    x = (y * 0.97 + 0.01 + 0.006 * noise).clamp(0, 1)
    return x, y


def dense(plane: torch.Tensor, sigma: float) -> torch.Tensor:
    """(b, h, w) under a 33 x 33 window with zeros outside."""
    offsets = torch.arange(33, dtype=torch.float64) - 16
    window = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * sigma**2))
    return F.conv2d(plane[:, None], (window / window.sum())[None, None], padding=16)[:, 0]


def expected(x: torch.Tensor, y: torch.Tensor, alpha: float, maps: list[tuple[int, float]], last: list[int]):
    """The formula, map by map: (colour, sigma) of the structure, and the colours whose luminance at 8 px counts."""
    c1, c2 = 0.01**2, 0.03**2
    product = torch.ones_like(x[:, 0])
    for colour, sigma in maps:
        p, q = x[:, colour], y[:, colour]
        mean_p, mean_q = dense(p, sigma), dense(q, sigma)
        var_p, var_q = dense(p * p, sigma) - mean_p**2, dense(q * q, sigma) - mean_q**2
        covariance = dense(p * q, sigma) - mean_p * mean_q
        product = product * (2 * covariance + c2) / (var_p + var_q + c2)
    for colour in last:
        mean_p, mean_q = dense(x[:, colour], 8.0), dense(y[:, colour], 8.0)
        product = product * (2 * mean_p * mean_q + c1) / (mean_p**2 + mean_q**2 + c1)
    blurred = sum(dense((x - y).abs()[:, colour], 8.0) for colour in range(3)) / 3
    return (alpha * (1 - product) + (1 - alpha) * blurred).mean((1, 2)), product.mean()


@pytest.mark.parametrize("alpha", [0.1, 0.84])
def test_every_colour_at_every_scale(alpha: float) -> None:
    x, y = pictures()
    wanted, similarity = expected(x, y, alpha, [(c, s) for s in SIGMAS for c in range(3)], [0, 1, 2])
    assert 0.3 < similarity < 0.95
    torch.testing.assert_close(ms_ssim_l1_loss(x, y, alpha), wanted, rtol=1e-7, atol=0)
    torch.testing.assert_close(ms_ssim_l1_loss(x.float(), y.float(), alpha), wanted.float(), rtol=2e-4, atol=0)


def test_the_windows_as_the_grouped_convolution_of_trainner_deals_them_out() -> None:
    x, y = pictures()
    windows = torch.zeros(15, 1, 33, 33, dtype=torch.float64)
    offsets = torch.arange(33, dtype=torch.float64) - 16
    for number in range(15):
        window = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * SIGMAS[number // 3] ** 2))
        windows[number, 0] = window / window.sum()
    seen = F.conv2d(torch.eye(3, dtype=torch.float64).view(3, 3, 1, 1), windows[:, :, 16:17, 16:17], groups=3)
    dealt = [int(seen[:, number, 0, 0].argmax()) for number in range(15)]  # which colour a window looks at
    maps = [(dealt[number], SIGMAS[number // 3]) for number in range(15)]
    wanted, _ = expected(x, y, 0.1, maps, dealt[-3:])
    torch.testing.assert_close(ms_ssim_l1_loss(x, y, interleaved_scales=True), wanted, rtol=1e-7, atol=0)
    assert (ms_ssim_l1_loss(x, y) - wanted).abs().min() > 1e-4


def test_equal_pictures_have_no_loss_and_a_finite_gradient() -> None:
    _, y = pictures()
    x = y.float().requires_grad_()
    loss = ms_ssim_l1_loss(x, y.float())
    loss.sum().backward()
    assert loss.abs().max() < 2e-5
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white(value: float) -> None:
    x = torch.full((1, 3, 20, 20), value, requires_grad=True)
    ms_ssim_l1_loss(x, torch.full((1, 3, 20, 20), 1 - value)).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_sample_does_not_depend_on_its_batch_mates() -> None:
    x, y = pictures()
    torch.testing.assert_close(ms_ssim_l1_loss(x[1:], y[1:]), ms_ssim_l1_loss(x, y)[1:], rtol=1e-10, atol=0)
