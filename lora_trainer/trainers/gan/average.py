"""The averaged generator, whose images a GAN is judged by."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from lora_trainer.engine.ema import Ema


class HalfLifeAverage(Ema):
    """An average whose half-life is counted in images, and at first bounded by a share of the images seen."""

    def __init__(
        self, module: nn.Module, batch: int, half_life: Callable[[int], float], rampup: float | None = None
    ) -> None:
        """`half_life(step)` is in images; 0 follows at once."""
        super().__init__(module)
        self.batch, self.half_life, self.rampup = batch, half_life, rampup

    def decay_at(self, update: int) -> float:
        images = self.half_life(update)
        if self.rampup is not None:
            images = min(images, update * self.batch * self.rampup)
        return float(0.5 ** (self.batch / images)) if images > 0 else 0.0
