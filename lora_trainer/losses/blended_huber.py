"""EveryDream2's loss types: squared, Huber, and blends of the two that change with the timestep.

Letters: b batch, c channels, h w latent pixels.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from lora_trainer.losses.noise_schedule import TIMESTEPS

BlendedLoss = Literal["mse", "huber", "mse_huber", "huber_mse"]


def blended_losses(prediction: Tensor, target: Tensor, timesteps: Tensor, loss_type: BlendedLoss) -> Tensor:
    """(b, c, h, w) in float32 whatever comes in; ``timesteps`` is (b,).

    ``mse_huber`` goes from the square at timestep 0 to Huber's loss at 1000, along a line, and ``huber_mse`` the other
    way round. Huber's loss has the threshold 1: d ** 2 / 2 below it, |d| - 1 / 2 above. EveryDream2's own code has the
    two blends the wrong way round for their names.
    """
    prediction, target = prediction.float(), target.float()
    if loss_type == "mse":
        return F.mse_loss(prediction, target, reduction="none")
    huber = F.huber_loss(prediction, target, reduction="none")
    if loss_type == "huber":
        return huber
    square = F.mse_loss(prediction, target, reduction="none")
    share = (timesteps.to(square) / TIMESTEPS).view(-1, *[1] * (square.dim() - 1))
    first, last = (square, huber) if loss_type == "mse_huber" else (huber, square)
    return first + (last - first) * share
