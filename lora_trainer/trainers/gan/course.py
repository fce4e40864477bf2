"""What changes over a GAN's training: rates, Adam's second beta, R1's weight, the average and a fixed augmentation.

All follow a cosine from their first value to their last, which only r3gan has apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lora_trainer.config.gan import GanPreset


@dataclass(frozen=True)
class Course:
    """From the first to the last value over so many steps, after which it stays."""

    first: float
    last: float
    steps: float

    def __call__(self, step: int) -> float:
        if self.first == self.last:
            return self.first
        done = min(step / self.steps, 1.0) if self.steps else 1.0
        return self.last + (self.first - self.last) * (1 + math.cos(math.pi * done)) / 2


def course(preset: GanPreset, ends: tuple[float, float]) -> Course:
    """Between the two values of a preset's property."""
    return Course(*ends, preset.decay_kimg * 1000 / preset.batch)


def rate_factor(preset: GanPreset) -> Callable[[int], float]:
    """Of both learning rates, 1 at first."""
    return course(preset, (1.0, preset.recipe.last_rate_share))


def lazy_adam(rate: float, betas: tuple[float, float], every: int) -> tuple[float, tuple[float, float]]:
    """Rate and betas of an optimizer that also takes the step of a penalty every so many steps (Karras et al. 2020).

    0 is never.
    """
    share = every / (every + 1) if every else 1.0
    return rate * share, (betas[0] ** share, betas[1] ** share)
