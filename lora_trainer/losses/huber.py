"""How the difference between prediction and target counts: squared, absolute, or Huber with a threshold per timestep.

Letters: b batch, c channels, h w latent pixels, t timesteps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lora_trainer.losses.noise_schedule import TIMESTEPS

LossType = Literal["l2", "l1", "huber", "smooth_l1"]
HuberSchedule = Literal["snr", "exponential", "constant"]


@dataclass(frozen=True)
class Criterion:
    """sd-scripts' loss_type and huber_* keys. `c` is the threshold, at the noisiest timestep where it is scheduled."""

    loss_type: LossType = "l2"
    schedule: HuberSchedule = "snr"
    c: float = 0.1
    scale: float = 1.0

    @property
    def is_huber(self) -> bool:
        return self.loss_type in ("huber", "smooth_l1")

    def thresholds(self, alphas: Tensor) -> Tensor:
        """(t,) the threshold of every timestep, from the share of signal that is left there, (t,)."""
        if self.schedule == "constant":
            found = torch.full_like(alphas, self.c)
        elif self.schedule == "exponential":
            steps = torch.arange(len(alphas), dtype=alphas.dtype, device=alphas.device)
            found = torch.exp(math.log(self.c) / TIMESTEPS * steps)
        else:
            sigmas = ((1 - alphas) / alphas).sqrt()
            found = (1 - self.c) / (1 + sigmas) ** 2 + self.c
        return found * self.scale


Compare = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Prediction and target, (b, c, h, w), and timesteps, (b,), to the losses of all elements, (b, c, h, w) float32."""


def comparison(criterion: Criterion, alphas: Tensor) -> Compare:
    """The criterion for a noise schedule, (t,), on its device."""
    thresholds = criterion.thresholds(alphas) if criterion.is_huber else None

    def compare(prediction: Tensor, target: Tensor, timesteps: Tensor) -> Tensor:
        threshold = None if thresholds is None else thresholds[timesteps]
        return elementwise(prediction, target, criterion, threshold)

    return compare


def elementwise(prediction: Tensor, target: Tensor, criterion: Criterion, threshold: Tensor | None = None) -> Tensor:
    """(b, c, h, w) in float32 whatever comes in; `threshold` is (b,) and read by the Huber losses.

    Pseudo-Huber, as in sd-scripts: 2 c (sqrt(d^2 + c^2) - c), and without the first c for smooth_l1.
    """
    difference = prediction.float() - target.float()
    if criterion.loss_type == "l2":
        return difference.square()
    if criterion.loss_type == "l1":
        return difference.abs()
    assert threshold is not None
    c = threshold.view(-1, *[1] * (difference.dim() - 1))
    found = 2 * ((difference.square() + c.square()).sqrt() - c)
    return c * found if criterion.loss_type == "huber" else found
