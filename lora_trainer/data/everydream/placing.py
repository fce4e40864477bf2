"""Which shape a picture is trained at, which part of it is seen, and which pictures are too small for that."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from lora_trainer.data.buckets import BucketSettings, Placement, Size
from lora_trainer.data.survey import Sample
from lora_trainer.draws import python_random

STEP_PX = 64
LARGE_PX, LEAST_AREA = 512, 7 / 8  # below it steps of 64 are too coarse to leave any out
SMALL = 1.02**2  # a picture needs 2 % more than its bucket on each side


def bucket_settings(resolution: int) -> BucketSettings:
    """Shapes of about resolution ** 2 pixels, in steps of 64, from half of the resolution to twice as much a side; from
    512 on none with less than 7/8 of the pixels.

    A picture gets the one whose width / height is nearest to its own, by their difference.
    """
    least = max(STEP_PX, resolution // 2 // STEP_PX * STEP_PX)
    least_area = LEAST_AREA if resolution >= LARGE_PX else 0.0
    return BucketSettings((resolution, resolution), least, 2 * resolution, STEP_PX, True, least_area=least_area)


def with_jitter(placement: Placement, jitter: float, *key: int | str) -> Placement:
    """The same bucket cut out of a picture that is up to ``jitter`` larger, rather in its middle than at an edge.

    A function of the key. The sides of ``placement.resized_px`` must cover the bucket.
    """
    draw = python_random(*key, "crop")
    scale = 1.0 + jitter * draw.random()
    resized = tuple(math.ceil(px * scale) for px in placement.resized_px)
    top, left = (
        round(draw.triangular(0, whole - part)) for whole, part in zip(resized, placement.bucket_px, strict=True)
    )
    return replace(placement, resized_px=(resized[0], resized[1]), crop_top_left_px=(top, left))


def with_random_part(placement: Placement, most_px: int, *key: int | str) -> Placement:
    """A part of what the bucket shows, of `part_size`, anywhere in it; a function of the key."""
    draw = python_random(*key, "part")
    part = part_size(placement.bucket_px, most_px)
    top, left = (
        start + draw.randint(0, whole - own)
        for start, whole, own in zip(placement.crop_top_left_px, placement.bucket_px, part, strict=True)
    )
    return replace(placement, bucket_px=part, crop_top_left_px=(top, left))


def part_size(bucket_px: Size, most_px: int) -> Size:
    """Sides of at most so many pixels; 0 leaves them."""
    return (min(bucket_px[0], most_px), min(bucket_px[1], most_px)) if most_px else bucket_px


def is_undersized(size_px: Size, bucket_px: Size) -> bool:
    """Whether a picture has to be enlarged noticeably; one that has a side of the bucket's is as it was meant."""
    (height, width), (bucket_height, bucket_width) = size_px, bucket_px
    smaller = height * width < SMALL * bucket_height * bucket_width
    return smaller and height != bucket_height and width != bucket_width


def undersized_text(samples: Iterable[Sample]) -> str:
    """A line for each picture that is too small, `path, size: 300x200, target: 512x512`; all sizes width x height."""
    lines = []
    for sample in samples:
        if is_undersized(sample.size_px, sample.placement.bucket_px):
            (height, width), (target_height, target_width) = sample.size_px, sample.placement.bucket_px
            lines.append(f"{sample.path}, size: {width}x{height}, target: {target_width}x{target_height}\n")
    return "".join(lines)
