"""Blends of the squared and Huber's loss, by hand."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.losses.blended_huber import BlendedLoss, blended_losses


@pytest.mark.parametrize(
    ("loss_type", "expected"),
    [
        # differences 0.5 and 3: squares 0.25 and 9, Huber 0.125 and 2.5; timesteps 0, 250, 1000
        ("mse", [[0.25, 9.0], [0.25, 9.0], [0.25, 9.0]]),
        ("huber", [[0.125, 2.5], [0.125, 2.5], [0.125, 2.5]]),
        ("mse_huber", [[0.25, 9.0], [0.21875, 7.375], [0.125, 2.5]]),
        ("huber_mse", [[0.125, 2.5], [0.15625, 4.125], [0.25, 9.0]]),
    ],
)
def test_losses_by_hand(loss_type: BlendedLoss, expected: list[list[float]]) -> None:
    prediction = torch.tensor([0.5, -3.0]).repeat(3, 1).view(3, 2, 1, 1).bfloat16()
    found = blended_losses(prediction, torch.zeros_like(prediction), torch.tensor([0, 250, 1000]), loss_type)
    assert found.dtype == torch.float32
    assert found.shape == (3, 2, 1, 1)
    torch.testing.assert_close(found.flatten(1), torch.tensor(expected))
