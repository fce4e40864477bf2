"""Losses of colour and brightness against numpy and torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from lora_trainer.draws import torch_generator
from lora_trainer.losses.colour import average_loss, bicubic_loss, color_loss, cosim_loss, luma_loss, ncc_loss
from lora_trainer.losses.colour_spaces import lightness


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(2, 2, 3, 24, 16, dtype=torch.float64, generator=torch_generator("pictures")).unbind(0)


def blocks(planes: np.ndarray, side: int) -> np.ndarray:
    *rest, height, width = planes.shape
    return planes.reshape(*rest, height // side, side, width // side, side).mean((-3, -1))


def test_color_loss_is_blind_to_brightness() -> None:
    x, y = pictures()
    matrix = np.array([[-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
    planes = [np.einsum("pc,bchw->bphw", matrix, image.numpy()) for image in (x, y)]
    expected = np.abs(blocks(planes[0], 4) - blocks(planes[1], 4)).mean((1, 2, 3))
    np.testing.assert_allclose(color_loss(x, y), expected, rtol=1e-9)
    assert color_loss(x, x + 0.1).max() < 1e-9


def test_average_loss() -> None:
    x, y = pictures()
    apart = blocks(x.numpy(), 8) - blocks(y.numpy(), 8)
    np.testing.assert_allclose(average_loss(x, y, "l2", 8), (apart**2).mean((1, 2, 3)), rtol=1e-9)


def test_bicubic_loss_as_torchvision_resizes_and_blurs() -> None:
    x, y = pictures()
    smaller = v2.Compose([v2.Resize([6, 4], v2.InterpolationMode.BICUBIC, antialias=True),
                          v2.GaussianBlur([5, 5], [0.5, 0.5])])  # fmt: skip
    # torchvision filters in float32
    expected = (smaller(x.float()) - smaller(y.float())).abs().mean((1, 2, 3))
    torch.testing.assert_close(bicubic_loss(x.float(), y.float()), expected, rtol=1e-5, atol=0)


def test_luma_loss_is_of_lightness() -> None:
    x, y = pictures()
    torch.testing.assert_close(luma_loss(x, y), (lightness(x) - lightness(y)).abs().mean((1, 2, 3)))
    dark = torch.full((1, 3, 2, 2), 0.02, dtype=torch.float64)
    assert luma_loss(dark, 0 * dark).item() == pytest.approx(0.02 / 12.92 * 9.032962962, rel=1e-6)


def test_cosine_similarity() -> None:
    x, y = pictures()
    dot = (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()
    torch.testing.assert_close(cosim_loss(x, y), 5 * (1 - dot.mean((1, 2))))
    assert cosim_loss(x, x / 2).abs().max() < 1e-12
    red, blue = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]).view(2, 1, 3, 1, 1).unbind(0)
    assert cosim_loss(red, blue, 2.0).item() == pytest.approx(2)


def test_cross_correlation() -> None:
    x, y = pictures()
    expected = []
    for p, q in zip(x.numpy().reshape(2, 3, -1), y.numpy().reshape(2, 3, -1), strict=True):
        expected.append(np.mean([(1 - np.corrcoef(a, b)[0, 1]) / 2 for a, b in zip(p, q, strict=True)]))
    np.testing.assert_allclose(ncc_loss(x, y), expected, rtol=1e-5)
    assert ncc_loss(x, 0.3 + x / 2).max() < 1e-6
    assert ncc_loss(x, 1 - x).min() > 1 - 1e-6


def test_cross_correlation_of_flat_pictures_is_finite() -> None:
    _, y = pictures()
    grey = torch.full((2, 3, 24, 16), 0.5, requires_grad=True)
    loss = ncc_loss(grey, y.float())
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    assert grey.grad is not None
    assert grey.grad.isfinite().all()
    assert ncc_loss(grey, torch.zeros(2, 3, 24, 16)).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_gradients_at_black_and_white_are_finite() -> None:
    for loss in (color_loss, luma_loss, average_loss, bicubic_loss, cosim_loss, ncc_loss):
        for value in (0.0, 1.0):
            x = torch.full((1, 3, 16, 16), value, requires_grad=True)
            loss(x, torch.rand(1, 3, 16, 16, generator=torch_generator("y"))).sum().backward()
            assert x.grad is not None
            assert x.grad.isfinite().all(), loss.__name__
