"""The micro-batches of a VAE's training: parts of pictures, as a function of the step.

Everything random is drawn here, on the CPU, keyed by (seed, step, position in the step's whole batch).
Letters: b batch, c latent channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lora_trainer.data.batches import Share, micro_positions
from lora_trainer.data.buckets import VAE_STEP_PX, Placement
from lora_trainer.data.color_augmentation import turn_hue
from lora_trainer.data.everydream.epochs import EpochBatch, EpochPlan
from lora_trainer.data.everydream.placing import with_jitter, with_random_part
from lora_trainer.data.everydream.usage import Usage
from lora_trainer.data.latent_encoding import read_pixels
from lora_trainer.draws import torch_generator, uniform
from lora_trainer.trainers.finetune.pictures import PictureSet

LATENT_CHANNELS = 4


@dataclass
class VaeData:
    """`data(step)` is the list of this process's micro-batches. Pickled into loader processes.

    They hold `pixels` (b, 3, h, w) from -1 to 1, `latent_noise` (b, c, h/8, w/8) and `loss_weight` (b,), of the picture
    and of a filled batch. ``crop_px`` 0 shows whole pictures.
    """

    pictures: PictureSet
    plan: EpochPlan
    usage: Usage
    share: Share
    crop_jitter: float = 0.0
    crop_px: int = 0
    hue_p: float = 0.0

    def __call__(self, step: int) -> list[dict[str, Any]]:
        batch = self.plan.planned(step)
        return [self._micro(step, batch, positions) for positions in micro_positions(batch.items, self.share)]

    def _micro(self, step: int, batch: EpochBatch, positions: Sequence[int]) -> dict[str, Any]:
        """One forward pass; a process without a picture of its own gets one that counts nothing."""
        weights = torch.ones(len(positions)) if positions else torch.zeros(1)
        rows = [self._row(step, position, batch) for position in positions or (0,)]
        names = [self.pictures.samples[batch.items[position]].name for position in positions or (0,)]
        stacked = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        return {**stacked, "names": names, "weights": weights, "total": len(batch.items)}

    def _row(self, step: int, position: int, batch: EpochBatch) -> dict[str, Tensor]:
        index = batch.items[position]
        item, sample = self.pictures.items[index], self.pictures.samples[index]
        key = (self.plan.seed, step, position)
        placement = self._placement(sample.placement, *key)
        turned = uniform(*key, "turn") < self.hue_p
        change = partial(turn_hue, degrees=360 * uniform(*key, "hue")) if turned else None
        pixels = read_pixels(sample, placement, change)
        height, width = (px // VAE_STEP_PX for px in placement.bucket_px)
        noise = torch.randn((LATENT_CHANNELS, height, width), generator=torch_generator(*key, "vae"))
        return {
            "pixels": pixels.flip(-1) if self.usage.mirrored(item, *key) else pixels,
            "latent_noise": noise,
            "loss_weight": torch.tensor(item.settings.loss_scale * batch.loss_scale),
        }

    def _placement(self, placement: Placement, *key: int) -> Placement:
        if self.crop_jitter:
            placement = with_jitter(placement, self.crop_jitter, *key)
        return with_random_part(placement, self.crop_px, *key)
