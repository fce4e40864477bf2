"""R1 and path length on functions whose derivatives are known, and what their gradients cost."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lora_trainer.losses.gan import (
    discriminator_logistic,
    generator_logistic,
    path_length_penalty,
    path_lengths,
    r1_penalty,
)


def test_the_logistic_loss() -> None:
    logits = torch.tensor([[-3.0], [0.5]])
    assert torch.allclose(generator_logistic(logits), (1 + (-logits).exp()).log()[:, 0])
    assert torch.allclose(discriminator_logistic(logits, True), (1 + (-logits).exp()).log()[:, 0])
    assert torch.allclose(discriminator_logistic(logits, False), (1 + logits.exp()).log()[:, 0])


def test_r1_of_a_quadratic_form() -> None:
    """The logit a sum(x^2) has the gradient 2 a x, whose square is 4 a^2 sum(x^2)."""
    images = torch.randn(3, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    penalty = r1_penalty(scale * images.square().sum((1, 2, 3), keepdim=True), images, gamma=10.0)
    energy = images.detach().square().sum((1, 2, 3))
    torch.testing.assert_close(penalty, 5.0 * 4 * 0.7**2 * energy)
    penalty.sum().backward()
    assert scale.grad is not None
    torch.testing.assert_close(scale.grad, 5.0 * 8 * 0.7 * energy.sum())


class _Convolutions(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.masks: list[list[bool]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.ops.aten.convolution_backward.default:
            self.masks.append(list(args[-1]))
        return func(*args, **(kwargs or {}))


def test_r1_computes_no_gradient_of_a_weight_on_its_way_to_the_images() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Conv2d(4, 1, 3), nn.Flatten())
    images = torch.randn(2, 3, 6, 6, requires_grad=True)
    with _Convolutions() as seen:
        penalty = r1_penalty(network(images), images, 1.0)
    assert seen.masks == [[True, False, False]] * 2
    penalty.sum().backward()
    assert all(layer.weight.grad.abs().max() > 0 for layer in (network[0], network[2]))  # type: ignore[union-attr]


def test_path_lengths_of_a_linear_generator() -> None:
    """Each layer's w moves the image by its own matrix."""
    matrices = torch.randn(2, 3, 12, dtype=torch.float64)
    ws = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    images = torch.einsum("bld,ldn->bn", ws, matrices).view(4, 3, 2, 2)
    noise = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    moved = torch.einsum("bn,ldn->bld", noise.flatten(1) / math.sqrt(4), matrices)
    torch.testing.assert_close(path_lengths(images, ws, noise), moved.square().sum(2).mean(1).sqrt())


def test_the_mean_moves_first_and_passes_the_gradient() -> None:
    lengths = torch.tensor([1.0, 3.0], dtype=torch.float64, requires_grad=True)
    mean = torch.tensor(0.5, dtype=torch.float64)
    penalties, new_mean = path_length_penalty(lengths, mean)
    assert math.isclose(float(new_mean), 0.515)
    assert not new_mean.requires_grad
    torch.testing.assert_close(penalties, (lengths - 0.515) ** 2)

    def total(lengths: Tensor) -> Tensor:
        return path_length_penalty(lengths, mean)[0].sum()

    assert torch.autograd.gradcheck(total, lengths)
