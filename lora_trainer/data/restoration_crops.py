"""The micro-batches of a restoration step: square crops of both pictures, mirrored, turned and prompted by the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from lora_trainer.data.batches import BatchPlan, Share, micro_positions
from lora_trainer.data.buckets import Placement, Size
from lora_trainer.data.images import Pixels, resize_and_crop
from lora_trainer.data.pair_crops import oriented, stacked
from lora_trainer.data.pair_store import PairStore
from lora_trainer.draws import draw_key, python_random, uniform

CropType = Literal["random", "center", "none"]


@dataclass
class RestorationCrops:
    """`data(step)` is the list of this process's micro-batches. Pickled into loader processes.

    A micro-batch has uint8 "gt" (b, 3, side, side), for pairs "lq" of the same shape, "prompts", and for each sample a
    key from which everything random about it follows on the device.
    """

    plan: BatchPlan
    store: PairStore
    prompts: Sequence[str]
    side_px: int
    share: Share
    crop_type: CropType = "random"
    use_hflip: bool = True
    use_rot: bool = True
    p_empty_prompt: float = 0.0

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
            "prompts": [self._prompt(step, position, batch[position]) for position in chosen],
            "keys": [draw_key(self.plan.seed, step, position, "degradation") for position in chosen],
            "names": [self.store.pairs[batch[position]].name for position in chosen],
            "weights": weights,
            "total": len(batch),
        }

    def _sample(self, step: int, position: int, item: int) -> tuple[Pixels, Pixels | None]:
        pair = self.store.pairs[item]
        draw = python_random(self.plan.seed, step, position, "crop")
        where = (draw.random(), draw.random()) if self.crop_type == "random" else (0.5, 0.5)
        mirrored = self.use_hflip and draw.random() < 0.5
        flipped, turned = (draw.random() < 0.5, draw.random() < 0.5) if self.use_rot else (False, False)
        placement = square_placement(pair.gt_px, self.side_px, where, whole=self.crop_type == "none")
        shown = partial(oriented, mirrored=mirrored, flipped=flipped, turned=turned)
        gt = shown(resize_and_crop(self.store.picture(item, "gt"), placement))
        return gt, None if pair.lq is None else shown(resize_and_crop(self.store.picture(item, "lq"), placement))

    def _prompt(self, step: int, position: int, item: int) -> str:
        dropped = uniform(self.plan.seed, step, position, "prompt") < self.p_empty_prompt
        return "" if dropped else self.prompts[item]


def square_placement(size_px: Size, side_px: int, where: tuple[float, float], whole: bool) -> Placement:
    """A square of a picture (height, width), at shares of the room down and across; 0.5 is the middle.

    A picture that is too small is enlarged until the square fits. With `whole`, a large one is also made smaller, until
    its short side is the square's: as much of it is shown as can be without squashing it.
    """
    least = min(size_px)
    scaled = whole or least < side_px
    height, width = (round(side * side_px / least) if scaled else side for side in size_px)
    top, left = (round(share * (side - side_px)) for share, side in zip(where, (height, width), strict=True))
    return Placement((side_px, side_px), (height, width), (top, left))
