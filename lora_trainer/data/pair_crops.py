"""The micro-batches of a super-resolution step: aligned crops, mirrored and turned, as a function of the step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from lora_trainer.data.images import Pixels
from lora_trainer.data.pair_batches import PairBatches, oriented
from lora_trainer.draws import python_random


@dataclass
class PairCrops(PairBatches):
    """Squares of `lq_px` in the low resolution, of `lq_px` * `scale` in the high one."""

    scale: int
    lq_px: int
    use_hflip: bool = True
    use_rot: bool = True

    def sample(self, step: int, position: int, item: int) -> tuple[Pixels, Pixels | None]:
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
