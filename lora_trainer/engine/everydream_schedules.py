"""The learning-rate curves of EveryDream2: diffusers' own, whose decay and warm-up follow from the run's length."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lora_trainer.engine.schedules import Curve, Schedule, make_schedule

DECAY_PER_RUN = 1.5
WARMUP_DIVISOR = 50  # 2 % of the decay


@dataclass(frozen=True)
class RateCurve:
    """A curve by its name, all in optimizer steps. ``rate`` is the highest learning rate."""

    name: str
    warmup_steps: int
    decay_steps: int
    rate: float

    @property
    def schedule(self) -> Schedule:
        """The factor on the rate. A cosine is not held at 0 after its decay, as diffusers does not either."""
        if self.name == "cosine":
            return self._cosine
        if self.name == "constant":
            return make_schedule("constant", Curve(self.decay_steps))
        return make_schedule(self.name, Curve(self.decay_steps, self.warmup_steps, base_rate=self.rate))

    def at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.rate * self.schedule(step)

    def warning(self, total_steps: int, prefix: str = "") -> str:
        """What a person should know about a warm-up or a decay that does not go with the run's length, or nothing.
        ``prefix`` is that of the keys."""
        if self.name == "constant":
            return ""
        if self.warmup_steps >= total_steps:
            text = (
                f"the rate still rises when the run ends, in step {total_steps} of {self.warmup_steps} of its warm-up"
            )
            return f"{text}; make {prefix}lr_warmup_steps smaller"
        if self.decay_steps >= total_steps:
            return ""
        text = f"the rate comes down to 0 in step {self.decay_steps} of {total_steps}"
        if self.name == "cosine":
            return f"{text} and rises again; set {prefix}lr_decay_steps to {total_steps} or more"
        return f"{text} and nothing is learnt after it; set {prefix}lr_decay_steps to {total_steps} or more"

    def _cosine(self, step: int) -> float:
        if step < self.warmup_steps:
            return step / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.decay_steps - self.warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * progress))


def rate_curve(name: str, rate: float, total_steps: int, warmup_steps: int = -1, decay_steps: int = 0) -> RateCurve:
    """With what is not set (-1, 0) taken from the run's length: a decay of 1.5 times it, a warm-up of 2 % of that."""
    decay = decay_steps or max(1, int(total_steps * DECAY_PER_RUN))
    warmup = warmup_steps if warmup_steps >= 0 else int(decay / WARMUP_DIVISOR)
    return RateCurve(name, warmup, decay, rate)
