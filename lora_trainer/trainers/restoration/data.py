"""The batches of a restoration's step: pairs for the LoRA, others for the discriminator, noise for the latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_trainer.data.restoration_crops import RestorationCrops
from lora_trainer.draws import torch_generator
from lora_trainer.trainers.restoration.networks import LATENT_PX
from lora_trainer.trainers.restoration.objective import JUDGED


@dataclass
class RestorationData:
    """`data(step)` is the list of this process's micro-batches; the discriminator's keys have `JUDGED` before them.

    `judged` are the steps in which it learns, none where there is no discriminator. Beside what the crops give, there
    is "noise" (b, c, side/8, side/8).
    """

    crops: RestorationCrops
    latent_channels: int
    judged: Sequence[range] = ()

    def __call__(self, step: int) -> list[dict[str, Any]]:
        if not self.judged:
            return [self._with_noise(micro) for micro in self.crops(step)]
        micros = [self._with_noise(micro) for micro in self.crops(2 * step)]
        if not any(step in steps for steps in self.judged):
            return micros
        others = [self._with_noise(micro) for micro in self.crops(2 * step + 1)]
        return [_joined(micro, other) for micro, other in zip(micros, others, strict=True)]

    def _with_noise(self, micro: dict[str, Any]) -> dict[str, Any]:
        side = self.crops.side_px // LATENT_PX
        shape = (self.latent_channels, side, side)
        noise = [torch.randn(shape, generator=torch_generator(key, "posterior")) for key in micro["keys"]]
        return {**micro, "noise": torch.stack(noise)}


def _joined(micro: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """All batches have one size, so that weights and total are the same for both."""
    names = [f"{name} and {second}" for name, second in zip(micro["names"], other["names"], strict=True)]
    return {**micro, **{f"{JUDGED}{key}": value for key, value in other.items()}, "names": names}
