"""Mixture of augmentations (MoA): mixing the crops of a batch with each other, or parts of both resolutions.

One augmentation is drawn for a batch; a crop's partner is its neighbour in the batch. Images are (b, 3, h, w) from 0 to
1. mixup (Zhang 2017), CutMix (Yun 2019), ResizeMix (Qin 2020), CutBlur (Yoo 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from torch import Tensor

from lora_trainer.data.resize import resize, to_eight_bits
from lora_trainer.draws import python_random

MIXUP_BETA = 1.2
CUTBLUR_ALPHA = 0.7
RESIZEMIX_RANGE = (0.25, 0.9)

Pictures = tuple[Tensor, Tensor]


def mix(gt: Tensor, lq: Tensor, scale: int, key: int, augs: Sequence[str], probs: Sequence[float]) -> Pictures:
    """Both resolutions after the augmentation that the key draws. ValueError for an unknown name."""
    draw = python_random(key, "mix")
    (chosen,) = draw.choices([aug.casefold() for aug in augs], weights=probs)
    if chosen not in AUGMENTATIONS:
        raise ValueError(f"no augmentation {chosen}; there is {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[chosen](gt, lq, scale, draw)


def _none(gt: Tensor, lq: Tensor, scale: int, draw: Random) -> Pictures:
    return gt, lq


def _mixup(gt: Tensor, lq: Tensor, scale: int, draw: Random) -> Pictures:
    share = draw.betavariate(MIXUP_BETA, MIXUP_BETA)
    return share * gt + (1 - share) * gt.roll(1, 0), share * lq + (1 - share) * lq.roll(1, 0)


def _cutmix(gt: Tensor, lq: Tensor, scale: int, draw: Random) -> Pictures:
    box = _box(lq, (1 - draw.random()) ** 0.5, draw)
    return _pasted(gt, gt.roll(1, 0), _times(box, scale)), _pasted(lq, lq.roll(1, 0), box)


def _resizemix(gt: Tensor, lq: Tensor, scale: int, draw: Random) -> Pictures:
    """The partner made smaller and pasted whole."""
    top, left, height, width = _box(lq, draw.uniform(*RESIZEMIX_RANGE), draw)
    mixed_gt, mixed_lq = gt.clone(), lq.clone()
    small = resize(lq.roll(1, 0), (height, width), "bicubic").clamp(0, 1)
    big = resize(gt.roll(1, 0), (height * scale, width * scale), "bicubic").clamp(0, 1)
    mixed_lq[..., top : top + height, left : left + width] = small
    t, u, h, w = _times((top, left, height, width), scale)
    mixed_gt[..., t : t + h, u : u + w] = big
    return mixed_gt, mixed_lq


def _cutblur(gt: Tensor, lq: Tensor, scale: int, draw: Random) -> Pictures:
    """A part of the input is as good as the original can be there, or everything but that part."""
    box = _box(lq, draw.gauss(CUTBLUR_ALPHA, 0.01) * 0.999, draw)
    best = to_eight_bits(resize(gt, (int(lq.shape[-2]), int(lq.shape[-1])), "bicubic"))
    return gt, _pasted(lq, best, box) if draw.random() > 0.5 else _pasted(best, lq, box)


def _box(lq: Tensor, share: float, draw: Random) -> tuple[int, int, int, int]:
    """Top, left, height and width of a part of the low resolution, at least a pixel."""
    height, width = (max(1, min(side, round(side * share))) for side in lq.shape[-2:])
    return draw.randint(0, lq.shape[-2] - height), draw.randint(0, lq.shape[-1] - width), height, width


def _times(box: tuple[int, int, int, int], scale: int) -> tuple[int, int, int, int]:
    top, left, height, width = box
    return top * scale, left * scale, height * scale, width * scale


def _pasted(image: Tensor, other: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    top, left, height, width = box
    mixed = image.clone()
    mixed[..., top : top + height, left : left + width] = other[..., top : top + height, left : left + width]
    return mixed


AUGMENTATIONS: Mapping[str, Callable[[Tensor, Tensor, int, Random], Pictures]] = {
    "none": _none,
    "mixup": _mixup,
    "cutmix": _cutmix,
    "resizemix": _resizemix,
    "cutblur": _cutblur,
}
