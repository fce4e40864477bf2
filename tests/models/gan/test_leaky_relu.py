"""The activation with its derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

from lora_trainer.models.gan.leaky_relu import leaky_relu


def test_values() -> None:
    x = torch.tensor([-2000.0, -1.0, 0.0, 1.0, 2000.0])
    assert torch.allclose(leaky_relu(x, 2.0, 256.0), torch.tensor([-256.0, -0.4, 0.0, 2.0, 256.0]))
    assert torch.allclose(leaky_relu(x, 1.0, None), torch.tensor([-400.0, -0.2, 0.0, 1.0, 2000.0]))
    assert torch.equal(x, torch.tensor([-2000.0, -1.0, 0.0, 1.0, 2000.0]))


def test_derivatives_and_none_beyond_the_clamp() -> None:
    x = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)

    def bent(x: Tensor) -> Tensor:
        return leaky_relu(x * x - 0.5, 1.5, 1.0)

    assert torch.autograd.gradcheck(bent, x)
    assert torch.autograd.gradgradcheck(bent, x)
    far = torch.tensor([-100.0, 3.0, 0.5], requires_grad=True)
    leaky_relu(far, 1.0, 1.0).sum().backward()
    assert far.grad is not None
    assert far.grad.tolist() == [0.0, 0.0, 1.0]
