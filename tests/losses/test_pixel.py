"""Losses by pixel, against sums in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.losses.pixel import charbonnier_loss, difference_named, l1_loss, mse_loss, psnr_loss


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(2, 2, 3, 5, 7, dtype=torch.float64, generator=torch_generator("pictures")).unbind(0)


def test_l1_and_mse_are_means_of_each_sample() -> None:
    x, y = pictures()
    apart = x.numpy() - y.numpy()
    np.testing.assert_allclose(l1_loss(x, y), np.abs(apart).mean((1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(mse_loss(x, y), (apart**2).mean((1, 2, 3)), rtol=1e-12)
    assert l1_loss(x, y).mean() == pytest.approx(np.abs(apart).mean())


def test_charbonnier_adds_eps_to_the_square() -> None:
    x, y = pictures()
    expected = np.sqrt((x.numpy() - y.numpy()) ** 2 + 1e-3).mean((1, 2, 3))
    np.testing.assert_allclose(charbonnier_loss(x, y, eps=1e-3), expected, rtol=1e-12)
    assert charbonnier_loss(x, x).tolist() == pytest.approx([1e-6, 1e-6])


def test_charbonnier_has_a_gradient_at_zero() -> None:
    x = torch.zeros(1, 3, 2, 2, requires_grad=True)
    charbonnier_loss(x, torch.zeros(1, 3, 2, 2)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() == 0


def test_psnr_by_hand() -> None:
    white, grey = torch.ones(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.9)
    assert psnr_loss(white, grey).tolist() == pytest.approx([-20.0, -20.0], abs=1e-4)
    assert psnr_loss(white, white).tolist() == pytest.approx([-80.0, -80.0], abs=1e-4)
    in_studio_range = 20 * np.log10(0.1 * 219 / 255)
    assert psnr_loss(white, grey, to_y=True).tolist() == pytest.approx([in_studio_range] * 2, abs=1e-4)


def test_an_unknown_criterion_is_refused() -> None:
    with pytest.raises(Refusal, match=r"^there is no criterion 'huber'; write one of l1, l2, mse, charbonnier$"):
        difference_named("huber")
