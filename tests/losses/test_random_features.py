"""The stand-in of LPIPS: the same for ever, differentiable, and aware of every pixel of large pictures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lora_trainer.draws import torch_generator
from lora_trainer.losses.random_features import RandomFeatures, RandomLpips


def pictures(px: int = 96) -> tuple[Tensor, Tensor]:
    """A smooth picture, and it with noise."""
    ramp = torch.linspace(0, 6, px)
    smooth = torch.stack([(ramp[:, None] * k + ramp).sin() * 0.4 + 0.5 for k in (1, 2, 3)])[None]
    return smooth, smooth + 0.05 * torch.randn(smooth.shape, generator=torch_generator("noise"))


def test_equal_pictures_are_0_apart_and_noisier_ones_farther() -> None:
    network = RandomLpips()
    smooth, noisy = pictures()
    assert network(noisy, noisy).tolist() == [0]
    both = network(torch.cat([noisy, smooth + 3 * (noisy - smooth)]), smooth.expand(2, -1, -1, -1))
    assert both.shape == (2,)
    assert 0 < both[0] < both[1] <= 2
    assert both.tolist() == pytest.approx(KNOWN, rel=1e-3)
    assert network(smooth, noisy).tolist() == pytest.approx([KNOWN[0]], rel=1e-3)


KNOWN = [0.0154357, 0.0938546]


def test_every_pixel_of_a_large_picture_has_a_gradient_and_no_weight_has_one() -> None:
    network = RandomLpips()
    smooth, noisy = pictures(160)
    output = noisy.requires_grad_()
    network(output, smooth).sum().backward()
    assert output.grad is not None
    assert (output.grad != 0).float().mean() > 0.99
    assert not list(network.parameters())


def test_the_gradient_is_that_of_the_difference() -> None:
    network = RandomLpips()
    smooth, noisy = pictures(12)
    output = noisy.requires_grad_()
    (gradient,) = torch.autograd.grad(network(output, smooth).sum(), output)
    direction = torch.randn(noisy.shape, generator=torch_generator("direction"))
    with torch.no_grad():
        ahead, behind = (network(noisy + step * direction, smooth) for step in (1e-3, -1e-3))
    assert float((gradient * direction).sum()) == pytest.approx(float(ahead - behind) / 2e-3, rel=2e-2)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_pictures_have_small_gradients(value: float) -> None:
    output = torch.full((1, 3, 64, 64), value).requires_grad_()
    RandomLpips()(output, pictures(64)[0]).sum().backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()
    assert output.grad.abs().max() < 0.1


def test_half_precision_is_raised() -> None:
    smooth, noisy = pictures()
    found = RandomLpips()(noisy.bfloat16(), smooth)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([KNOWN[0]], rel=0.1)


def test_descent_brings_a_picture_nearer_to_the_other() -> None:
    network = RandomLpips()
    smooth, noisy = pictures(48)
    output = noisy.clone().requires_grad_()
    optimizer = torch.optim.Adam([output], lr=0.01)
    before = float((output.detach() - smooth).square().mean())
    for _ in range(20):
        optimizer.zero_grad()
        network(output, smooth).sum().backward()
        optimizer.step()
    assert float((output.detach() - smooth).square().mean()) < 0.7 * before


def test_only_the_metrics_look_at_small_copies() -> None:
    image = torch.rand(1, 3, 128, 80, generator=torch_generator("image")) * 255
    assert [tuple(layer.shape[2:]) for layer in RandomFeatures().layers(image)] == [(64, 64), (32, 32), (16, 16)]
    whole = RandomFeatures(largest_px=0).layers(image)
    assert [tuple(layer.shape[1:]) for layer in whole] == [(24, 128, 80), (48, 64, 40), (96, 32, 20)]
