"""Restoring pictures of any size with the networks as they are.

Letters: b batch, h w pixels. Pictures go from 0 to 1 here, those of the networks from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_trainer.engine.precision import Precision
from lora_trainer.models.restoration.sizes import resized, working_size
from lora_trainer.models.restoration.tiles import Tiling
from lora_trainer.trainers.restoration.networks import OneStep
from lora_trainer.trainers.restoration.objective import as_shares
from lora_trainer.trainers.restoration.prompts import Prompts


@dataclass(frozen=True)
class Painter:
    """`least_px` is what the shorter side has at least when the networks see it, a tile's side without it.

    `fidelity` and `at_once` are those of `OneStep.restored`.
    """

    networks: OneStep
    prompts: Prompts
    precision: Precision
    device: torch.device
    tiling: Tiling
    least_px: int = 0
    fidelity: float = 0.0
    at_once: int = 1

    @torch.inference_mode()
    def restored(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(b, 3, h, w) of the same size, on the CPU."""
        return self.painted(images.to(self.device), prompts).clamp(0, 1).cpu()

    @torch.inference_mode()
    def painted(
        self, images: Tensor, prompts: Sequence[str], noise: Callable[[Sequence[int]], Tensor] | None = None
    ) -> Tensor:
        """The same, not clamped and still on the device, where `images` are."""
        size = (int(images.shape[-2]), int(images.shape[-1]))
        shown = resized(images, working_size(size, self.least_px or self.tiling.tile_px)) * 2 - 1
        with self.precision.autocast():
            made = self.networks.restored(
                shown, self.prompts(prompts), self.tiling, noise=noise, fidelity=self.fidelity, at_once=self.at_once
            )
        return resized(as_shares(made), size)
