"""The learning rate over time, as pure functions of the step: `rate = base * schedule(step)`.

The curves are those of transformers and diffusers (`get_scheduler`), which kohya's and EveryDream2's presets name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[int], float]

POLYNOMIAL_END = 1e-7  # the rate, not a factor, at which "polynomial" ends in diffusers


@dataclass(frozen=True)
class Curve:
    """What the curves depend on; all in optimizer steps."""

    total_steps: int
    warmup_steps: int = 0
    num_cycles: float = 1
    power: float = 1.0
    base_rate: float = 1.0

    def warmup(self, step: int) -> float | None:
        """The factor while the rate still rises from zero, or None after that."""
        return step / self.warmup_steps if step < self.warmup_steps else None

    def progress(self, step: int) -> float:
        """How much of the time after the warm-up has passed, 0 to 1."""
        return min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))


def constant(curve: Curve, step: int) -> float:
    return 1.0


def linear(curve: Curve, step: int) -> float:
    return 1.0 - curve.progress(step)


def cosine(curve: Curve, step: int) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * curve.progress(step)))


def cosine_with_restarts(curve: Curve, step: int) -> float:
    progress = curve.progress(step)
    if progress >= 1.0:
        return 0.0
    return 0.5 * (1.0 + math.cos(math.pi * ((curve.num_cycles * progress) % 1.0)))


def polynomial(curve: Curve, step: int) -> float:
    """From the base rate to 1e-7 along (1 - progress) ** power; power 1 is a line."""
    end = min(1.0, POLYNOMIAL_END / curve.base_rate)
    return float((1.0 - end) * (1.0 - curve.progress(step)) ** curve.power + end)


SCHEDULES: dict[str, Callable[[Curve, int], float]] = {
    "constant": constant,
    "constant_with_warmup": constant,
    "linear": linear,
    "cosine": cosine,
    "cosine_with_restarts": cosine_with_restarts,
    "polynomial": polynomial,
}


def make_schedule(name: str, curve: Curve) -> Schedule:
    """The factor on the base rate for the optimizer step `step`, counted from 0. KeyError for an unknown name."""
    shape = SCHEDULES[name]

    def schedule(step: int) -> float:
        rising = curve.warmup(step)
        return shape(curve, step) if rising is None else rising

    return schedule
