"""Place every picture in a bucket: the size it is trained at, and how it is resized and cropped to that size.

All sizes and points are (height, width) and (top, left) in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from lora_trainer.draws import python_random
from lora_trainer.errors import Refusal

Size = tuple[int, int]  # height, width

VAE_STEP_PX = 8  # one latent pixel of the Stable Diffusion VAEs


@dataclass(frozen=True)
class BucketSettings:
    """What decides the buckets: the fields of sd-scripts, with the area given as a (height, width).

    ``min_reso_px`` and ``max_reso_px`` bound a bucket's sides only where pictures may be enlarged (``upscale``);
    without enlargement the pictures themselves decide. ``enabled`` False trains everything at ``resolution_px``.
    ``least_area`` is the share of the area that a bucket must have at least, where pictures may be enlarged.
    """

    resolution_px: Size
    min_reso_px: int = 256
    max_reso_px: int = 2048
    step_px: int = 64
    upscale: bool = False
    enabled: bool = True
    least_area: float = 0.0

    def __post_init__(self) -> None:
        problems = []
        if self.step_px < 1:
            problems.append(f"bucket_reso_steps is {self.step_px}; it must be at least 1")
        smallest_px = self.step_px if self.enabled else VAE_STEP_PX
        if min(self.resolution_px) < smallest_px:
            problems.append(f"max_resolution {_text(self.resolution_px)} has a side below {smallest_px} px; raise it")
        if self.enabled and self.upscale and self.min_reso_px > min(self.resolution_px):
            problems.append(f"min_bucket_reso {self.min_reso_px} is larger than a side of {_text(self.resolution_px)}")
        if self.enabled and self.upscale and self.max_reso_px < max(self.resolution_px):
            problems.append(f"max_bucket_reso {self.max_reso_px} is smaller than a side of {_text(self.resolution_px)}")
        if problems:
            raise Refusal(*problems)


@dataclass(frozen=True)
class Placement:
    """How one picture becomes its bucket's size: resize it to ``resized_px``, then cut ``bucket_px`` out of that."""

    bucket_px: Size
    resized_px: Size
    crop_top_left_px: tuple[int, int]


def place(height: int, width: int, settings: BucketSettings) -> Placement:
    """The placement of a picture of this size, cropped around its centre.

    Raises ValueError with a sentence for the person when a side is too small to fill one step of a bucket.
    """
    if not settings.enabled:
        return _centred(*_fixed(height, width, settings))
    if settings.upscale:
        return _centred(*_nearest(height, width, settings))
    return _centred(*_shrunk(height, width, settings))


def with_random_crop(placement: Placement, *key: int | str) -> Placement:
    """The same placement with the crop anywhere in the resized picture, as a function of the key (see ``draws``)."""
    spare = (whole - part for whole, part in zip(placement.resized_px, placement.bucket_px, strict=True))
    random = python_random(*key)
    top, left = (random.randint(0, px) for px in spare)
    return replace(placement, crop_top_left_px=(top, left))


def size_condition(height: int, width: int, placement: Placement, *, mirrored: bool = False) -> tuple[int, ...]:
    """SDXL's size embedding: original height, width, crop top, left, target height, width.

    The original size is that of the file before any resizing. The crop is where the trained part begins in the resized
    picture, as in SDXL's paper; in a mirrored picture it begins at the mirror image of its right edge. sd-scripts
    passes the margins of the whole picture letter-boxed into the bucket instead: the axis that is cut gets 0 and the
    axis that is not cut gets a number.
    """
    top, left = placement.crop_top_left_px
    if mirrored:
        left = placement.resized_px[1] - placement.bucket_px[1] - left
    return (height, width, top, left, *placement.bucket_px)


def aspect_error(height: int, width: int, placement: Placement) -> float:
    """How far the bucket's width / height is from the picture's."""
    return abs(placement.bucket_px[1] / placement.bucket_px[0] - width / height)


@lru_cache(maxsize=16)
def bucket_sizes(settings: BucketSettings) -> tuple[Size, ...]:
    """The buckets for pictures that may be enlarged, narrowest first, and of equal width the lowest first."""
    area = settings.resolution_px[0] * settings.resolution_px[1]
    step = settings.step_px
    smallest = max(step, _floor(settings.min_reso_px, step))
    largest = -_floor(-settings.max_reso_px, step)
    square = _floor(math.isqrt(area), step)
    sizes = {(square, square)}
    for side in range(smallest, largest + 1, step):
        other = min(largest, _floor(area // side, step))
        if other >= smallest and side * other >= settings.least_area * area:
            sizes |= {(side, other), (other, side)}
    return tuple(sorted(sizes, key=lambda size: (size[1], size[0])))


def _nearest(height: int, width: int, settings: BucketSettings) -> tuple[Size, Size]:
    """(bucket, resized) when pictures may be enlarged: the listed bucket with the most similar aspect ratio."""
    sizes = bucket_sizes(settings)
    aspect = width / height
    if (height, width) in sizes:
        return (height, width), (height, width)
    bucket = min(sizes, key=lambda size: abs(size[1] / size[0] - aspect))
    return bucket, _covering(height, width, bucket)


def _shrunk(height: int, width: int, settings: BucketSettings) -> tuple[Size, Size]:
    """(bucket, resized) when pictures are only made smaller: every picture keeps nearly all of its pixels."""
    step = settings.step_px
    area = settings.resolution_px[0] * settings.resolution_px[1]
    resized = (height, width) if height * width <= area else _shrunk_to_area(width / height, area, step)
    bucket = (_floor(resized[0], step), _floor(resized[1], step))
    if not all(bucket):
        raise ValueError(
            f"{_text((height, width))} px (height x width) is too small or too narrow: in the training area each side "
            f"needs {step} px; enlarge or crop the picture, or set bucket_no_upscale to false"
        )
    return bucket, resized


def _shrunk_to_area(aspect: float, area: int, step: int) -> Size:
    """The size of about this area with one side a whole number of steps: the side that changes the shape less."""
    exact_width = math.sqrt(area * aspect)
    width = _floor(_round(exact_width), step)
    height = _floor(_round(area / exact_width), step)

    def error(size: Size) -> float:
        bucket = (_floor(size[0], step), _floor(size[1], step))
        return abs(bucket[1] / bucket[0] - aspect) if all(bucket) else math.inf

    by_width = (_round(width / aspect), width)
    by_height = (height, _round(height * aspect))
    return by_width if error(by_width) < error(by_height) else by_height


def _fixed(height: int, width: int, settings: BucketSettings) -> tuple[Size, Size]:
    """(bucket, resized) without buckets: cover the resolution and crop. sd-scripts demands pictures of that size."""
    bucket = (_floor(settings.resolution_px[0], VAE_STEP_PX), _floor(settings.resolution_px[1], VAE_STEP_PX))
    return bucket, _covering(height, width, bucket)


def _covering(height: int, width: int, bucket: Size) -> Size:
    """The smallest size of the picture's shape that leaves no part of the bucket empty."""
    scale = bucket[0] / height if width / height > bucket[1] / bucket[0] else bucket[1] / width
    return max(bucket[0], _round(height * scale)), max(bucket[1], _round(width * scale))


def _centred(bucket: Size, resized: Size) -> Placement:
    return Placement(bucket, resized, ((resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2))


def _round(value: float) -> int:
    return int(value + 0.5)


def _floor(value: int, step: int) -> int:
    return value // step * step


def _text(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
