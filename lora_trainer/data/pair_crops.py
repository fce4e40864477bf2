"""The micro-batches of a super-resolution step: aligned crops, mirrored and turned, as a function of the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from lora_trainer.data.batches import BatchPlan, Share, micro_positions
from lora_trainer.data.images import Pixels
from lora_trainer.data.pair_store import PairStore
from lora_trainer.draws import draw_key, python_random


@dataclass
class PairCrops:
    """`data(step)` is the list of this process's micro-batches. Pickled into loader processes.

    A micro-batch has uint8 "gt" (b, 3, side * scale, side * scale), for pairs "lq" (b, 3, side, side), and for each
    sample a key from which everything random about it follows on the device.
    """

    plan: BatchPlan
    store: PairStore
    scale: int
    lq_px: int
    share: Share
    use_hflip: bool = True
    use_rot: bool = True

    def __call__(self, step: int) -> list[dict[str, Any]]:
        batch = self.plan.batch_of(step)
        return [self._micro(step, batch, positions) for positions in micro_positions(batch, self.share)]

    def _micro(self, step: int, batch: Sequence[int], positions: Sequence[int]) -> dict[str, Any]:
        """A process without a picture of its own gets one that counts nothing: the others wait for its gradients."""
        weights = torch.ones(len(positions)) if positions else torch.zeros(1)
        chosen = positions or (0,)
        rows = [self._sample(step, position, batch[position]) for position in chosen]
        micro: dict[str, Any] = {"gt": stacked([gt for gt, _ in rows])}
        if rows[0][1] is not None:
            micro["lq"] = stacked([lq for _, lq in rows if lq is not None])
        return {
            **micro,
            "keys": [draw_key(self.plan.seed, step, position, "degradation") for position in chosen],
            "names": [self.store.pairs[batch[position]].name for position in chosen],
            "weights": weights,
            "total": len(batch),
        }

    def _sample(self, step: int, position: int, item: int) -> tuple[Pixels, Pixels | None]:
        pair = self.store.pairs[item]
        draw = python_random(self.plan.seed, step, position, "crop")
        height, width = (side // self.scale for side in pair.gt_px)
        top, left = draw.randint(0, height - self.lq_px), draw.randint(0, width - self.lq_px)
        mirrored = self.use_hflip and draw.random() < 0.5
        flipped, turned = (draw.random() < 0.5, draw.random() < 0.5) if self.use_rot else (False, False)
        shown = partial(oriented, mirrored=mirrored, flipped=flipped, turned=turned)
        big = self.lq_px * self.scale
        gt = self.store.crop(item, top * self.scale, left * self.scale, big, "gt", self.scale)
        if pair.lq is None:
            return shown(gt), None
        return shown(gt), shown(self.store.crop(item, top, left, self.lq_px, "lq", self.scale))


def oriented(pixels: Pixels, mirrored: bool, flipped: bool, turned: bool) -> Pixels:
    """Mirrored left to right, flipped upside down, and with rows and columns exchanged."""
    pixels = pixels[:, ::-1] if mirrored else pixels
    pixels = pixels[::-1] if flipped else pixels
    return pixels.transpose(1, 0, 2) if turned else pixels


def stacked(crops: Sequence[Pixels]) -> torch.Tensor:
    """(h, w, 3) each -> (b, 3, h, w)."""
    return torch.from_numpy(np.stack([np.ascontiguousarray(crop.transpose(2, 0, 1)) for crop in crops]))
