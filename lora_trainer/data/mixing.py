"""Mixture of augmentations (MoA): mixing the crops of a batch with each other, or parts of both resolutions.

One augmentation is drawn for a batch; a crop's partner is its neighbour in the batch, so that a batch of one is mixed
with itself. Images are (b, 3, h, w) from 0 to 1. mixup (Zhang 2017), CutMix (Yun 2019), ResizeMix (Qin 2020), CutBlur
(Yoo 2020); the ranges are those that traiNNer-redux's users know, and so are its own downup and up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from torch import Tensor

from lora_trainer.data.resize import interpolate, resize, to_eight_bits
from lora_trainer.draws import python_random

MIXUP_SHARE = (0.4, 0.6)
CUTMIX_AREA = (0.1, 1.0)  # of the picture that the partner takes
RESIZEMIX_SIDE = (0.5, 0.9)
CUTBLUR_SIDE = (0.2, 0.7)
SMALLER_SIDE = (0.5, 0.9)  # of downup and up
KERNELS = ("bicubic", "bilinear", "nearest-exact")

Pictures = tuple[Tensor, Tensor]
Box = tuple[int, int, int, int]  # top, left, height, width


def mix(gt: Tensor, lq: Tensor, scale: int, key: int, augs: Sequence[str], probs: Sequence[float]) -> Pictures:
    """Both resolutions after the augmentation that the key draws. ValueError for an unknown name.

    ``gt`` is ``scale`` times as high and wide as ``lq``. The pictures that are given are left as they are.
    """
    draw = python_random(key, "mix")
    (chosen,) = draw.choices([aug.casefold() for aug in augs], weights=probs)
    if chosen not in AUGMENTATIONS:
        raise ValueError(f"no augmentation {chosen}; there is {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[chosen](gt, lq, scale, draw)


def _none(gt: Tensor, lq: Tensor, scale: int, draw: Random) -> Pictures:
    return gt, lq


def _mixup(gt: Tensor, lq: Tensor, scale: int, draw: Random) -> Pictures:
    share = draw.uniform(*MIXUP_SHARE)
    return share * gt + (1 - share) * gt.roll(1, 0), share * lq + (1 - share) * lq.roll(1, 0)


def _cutmix(gt: Tensor, lq: Tensor, scale: int, draw: Random) -> Pictures:
    box = _box(lq, draw.uniform(*CUTMIX_AREA) ** 0.5, draw)
    return _pasted(gt, gt.roll(1, 0), _times(box, scale)), _pasted(lq, lq.roll(1, 0), box)


def _resizemix(gt: Tensor, lq: Tensor, scale: int, draw: Random) -> Pictures:
    """The partner made smaller and pasted whole."""
    box = _box(lq, draw.uniform(*RESIZEMIX_SIDE), draw)
    mixed_gt, mixed_lq = gt.clone(), lq.clone()
    for mixed, whole, place in ((mixed_gt, gt, _times(box, scale)), (mixed_lq, lq, box)):
        _part(mixed, place).copy_(interpolate(whole.roll(1, 0), place[2:], "bicubic").clamp(0, 1))
    return mixed_gt, mixed_lq


def _cutblur(gt: Tensor, lq: Tensor, scale: int, draw: Random) -> Pictures:
    """A part of the input is as good as the original can be there, or everything but that part."""
    box = _box(lq, draw.uniform(*CUTBLUR_SIDE), draw)
    best = to_eight_bits(resize(gt, (lq.shape[-2], lq.shape[-1]), "bicubic"))
    return gt, _pasted(lq, best, box) if draw.random() < 0.5 else _pasted(best, lq, box)


def _downup(gt: Tensor, lq: Tensor, scale: int, draw: Random) -> Pictures:
    """The input made smaller and as large as before, not by nearest both times, which would leave steps."""
    side = draw.uniform(*SMALLER_SIDE)
    ways = draw.choice([(down, up) for down in KERNELS for up in KERNELS if not down == up == "nearest-exact"])
    height, width = int(lq.shape[-2]), int(lq.shape[-1])
    small = interpolate(lq, (max(1, round(height * side)), max(1, round(width * side))), ways[0])
    return gt, interpolate(small, (height, width), ways[1]).clamp(0, 1)


def _up(gt: Tensor, lq: Tensor, scale: int, draw: Random) -> Pictures:
    """The same part of both, as large as the whole was."""
    box = _box(lq, draw.uniform(*SMALLER_SIDE), draw)
    way = draw.choice(KERNELS)
    part_gt = interpolate(_part(gt, _times(box, scale)), (gt.shape[-2], gt.shape[-1]), "bicubic")
    return part_gt.clamp(0, 1), interpolate(_part(lq, box), (lq.shape[-2], lq.shape[-1]), way).clamp(0, 1)


def _box(lq: Tensor, side: float, draw: Random) -> Box:
    """A part of the low resolution whose sides are that share of the whole's, at least a pixel."""
    height, width = (max(1, min(whole, round(whole * side))) for whole in lq.shape[-2:])
    return draw.randint(0, lq.shape[-2] - height), draw.randint(0, lq.shape[-1] - width), height, width


def _times(box: Box, scale: int) -> Box:
    top, left, height, width = box
    return top * scale, left * scale, height * scale, width * scale


def _part(image: Tensor, box: Box) -> Tensor:
    top, left, height, width = box
    return image[..., top : top + height, left : left + width]


def _pasted(image: Tensor, other: Tensor, box: Box) -> Tensor:
    mixed = image.clone()
    _part(mixed, box).copy_(_part(other, box))
    return mixed


AUGMENTATIONS: Mapping[str, Callable[[Tensor, Tensor, int, Random], Pictures]] = {
    "none": _none,
    "mixup": _mixup,
    "cutmix": _cutmix,
    "resizemix": _resizemix,
    "cutblur": _cutblur,
    "downup": _downup,
    "up": _up,
}
