"""The micro-batches of a restoration step: square crops of both pictures, mirrored, turned and prompted by the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from lora_trainer.data.buckets import Placement, Size
from lora_trainer.data.images import Pixels, resize_and_crop
from lora_trainer.data.pair_batches import PairBatches, oriented
from lora_trainer.draws import python_random, uniform

CropType = Literal["random", "center", "none"]


@dataclass
class RestorationCrops(PairBatches):
    """Squares of `side_px` of both pictures; a micro-batch has "prompts" besides."""

    prompts: Sequence[str]
    side_px: int
    crop_type: CropType = "random"
    use_hflip: bool = True
    use_rot: bool = True
    p_empty_prompt: float = 0.0

    def micro(self, step: int, batch: Sequence[int], positions: Sequence[int]) -> dict[str, Any]:
        prompts = [self._prompt(step, position, batch[position]) for position in positions or (0,)]
        return {**super().micro(step, batch, positions), "prompts": prompts}

    def sample(self, step: int, position: int, item: int) -> tuple[Pixels, Pixels | None]:
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
