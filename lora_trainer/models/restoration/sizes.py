"""The sizes through which a picture goes on its way to being restored, and back to the one that was asked for.

Letters: b batch, c channels, h w pixels. Sizes are height, width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def wanted_size(size: Size, *, factor: float = 1.0, longest_px: int = 0) -> Size:
    """What the result shall have: so many times the picture's size, or a longest side where one is given."""
    ratio = longest_px / max(size) if longest_px else factor
    height, width = (max(1, round(side * ratio)) for side in size)
    return height, width


def working_size(size: Size, least_px: int) -> Size:
    """The size to restore at: larger in proportion where a side is shorter than the network should see."""
    if min(size) >= least_px:
        return size
    ratio = least_px / min(size)
    height, width = (max(least_px, round(side * ratio)) for side in size)
    return height, width


def resized(image: Tensor, size: Size) -> Tensor:
    """(b, c, *size) bicubic; smoothed before where it gets smaller."""
    here = tuple(image.shape[-2:])
    if here == size:
        return image
    smaller = size[0] < here[0] or size[1] < here[1]
    return F.interpolate(image, size=size, mode="bicubic", align_corners=False, antialias=smaller)


def padded(image: Tensor, multiple: int) -> Tensor:
    """(b, c, h, w) with the last column and row repeated up to sides that are multiples; to be cropped afterwards."""
    bottom, right = (-side % multiple for side in image.shape[-2:])
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def cropped(image: Tensor, size: Size) -> Tensor:
    """(b, c, *size) from the upper left corner."""
    return image[..., : size[0], : size[1]]
