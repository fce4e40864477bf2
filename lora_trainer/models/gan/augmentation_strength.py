"""How strong augmentation is: fixed, or adapted until the discriminator is right about some part of the real ones.

`aug` in the words of the field: ada, fixed, noaug.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

AUGMENTATIONS = ("ada", "fixed", "noaug")


class FixedStrength:
    """`p` never changes; 0 is noaug."""

    def __init__(self, p: float = 0.0) -> None:
        self.p = p

    def observe(self, real_logits: Tensor) -> None:
        """Nothing follows from them."""

    def count(self, signs: Tensor) -> None:
        """Nor from these."""

    def is_due(self, step: int) -> bool:
        return False

    def update(self, batch: int, signs: Tensor | None = None) -> None:
        """Nothing is due."""

    def state_dict(self) -> dict[str, Any]:
        return {"p": self.p}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The preset's strength stays: it is no state."""


class AdaptiveStrength(FixedStrength):
    """Raises p while more than `target` of the logits of real images have the sign of "real", else lowers it.

    The measure is the mean sign, -1..1. p moves by batch / (kimg * 1000) for each step, stays in 0..1 and would go
    from 0 to 1 in `kimg` thousands of images.
    """

    def __init__(self, p: float = 0.0, *, target: float = 0.6, interval: int = 4, kimg: float = 500.0) -> None:
        super().__init__(p)
        self.target, self.interval, self.kimg = target, interval, kimg
        self.mean_sign: float | None = None  # at the last update
        self._signs: Tensor | None = None  # (2,) sum and count since then, on the logits' device

    @torch.no_grad()
    def observe(self, real_logits: Tensor) -> None:
        """Take the logits of a pass into account; nothing waits for the device."""
        signs = real_logits.detach().float().sign()
        self.count(torch.stack([signs.sum(), torch.full_like(signs.sum(), signs.numel())]))

    def count(self, signs: Tensor) -> None:
        """Take the sum of signs and their number into account, (2,), such as those of a step in all processes."""
        self._signs = signs if self._signs is None else signs + self._signs.to(signs.device)

    def is_due(self, step: int) -> bool:
        return step % self.interval == 0

    @property
    def signs(self) -> Tensor | None:
        """Sum and count of the signs since the last update, to be summed over processes."""
        return self._signs

    def update(self, batch: int, signs: Tensor | None = None) -> None:
        """Adapt p to what was observed since the last time; waits for the device. `batch` is the total of a step.

        `signs` are those of all processes, where there is more than one.
        """
        signs = self._signs if signs is None else signs
        self._signs = None
        if signs is None:
            return
        total, count = signs.tolist()
        self.mean_sign = total / count
        direction = (self.mean_sign > self.target) - (self.mean_sign < self.target)
        self.p = min(max(self.p + direction * batch * self.interval / (self.kimg * 1000), 0.0), 1.0)

    def state_dict(self) -> dict[str, Any]:
        """Also what was observed since the last update, so that resuming between two of them is exact."""
        return {"p": self.p, "signs": None if self._signs is None else self._signs.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.p = float(state["p"])
        self._signs = None if state["signs"] is None else torch.tensor(state["signs"])
