"""Shapes, crops and pictures that are too small."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_trainer.data.buckets import Size, bucket_sizes, place
from lora_trainer.data.everydream.placing import (
    bucket_settings,
    is_undersized,
    undersized_text,
    with_jitter,
    with_random_part,
)
from lora_trainer.data.survey import Sample


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((512, 512), (512, 512)), ((600, 900), (384, 640)), ((1080, 1920), (384, 640)), ((1920, 1080), (640, 384)),
        ((300, 400), (448, 576)), ((400, 300), (576, 448)), ((100, 400), (256, 1024)), ((2000, 2100), (512, 512)),
        ((1000, 3000), (256, 896)),
    ],
)  # fmt: skip
def test_a_picture_gets_the_nearest_shape_at_512(size: Size, bucket: Size) -> None:
    assert place(*size, bucket_settings(512)).bucket_px == bucket


@pytest.mark.parametrize("resolution", [64, 128, 256, 320, 512, 576, 640, 704, 768, 832, 896, 960, 1024, 1152])
def test_shapes_have_about_the_area_in_steps_of_64(resolution: int) -> None:
    sizes = bucket_sizes(bucket_settings(resolution))
    assert (resolution, resolution) in sizes
    assert all(side % 64 == 0 and side <= 2 * resolution for size in sizes for side in size)
    assert all(height * width <= resolution**2 for height, width in sizes)
    assert {(width, height) for height, width in sizes} == set(sizes)


def test_jitter_enlarges_a_little_and_cuts_rather_in_the_middle() -> None:
    placement = place(100, 600, bucket_settings(512))
    lefts = []
    for step in range(300):
        moved = with_jitter(placement, 0.02, 1, step)
        spare = [whole - part for whole, part in zip(moved.resized_px, placement.bucket_px, strict=True)]
        assert moved.bucket_px == placement.bucket_px
        for whole, before in zip(moved.resized_px, placement.resized_px, strict=True):
            assert before <= whole <= before * 1.02 + 1
        assert all(0 <= at <= most for at, most in zip(moved.crop_top_left_px, spare, strict=True))
        lefts.append(moved.crop_top_left_px[1] / spare[1])
    assert 0.45 < sum(lefts) / 300 < 0.55
    assert sum(0.25 < left < 0.75 for left in lefts) / 300 == pytest.approx(0.75, abs=0.08)
    assert with_jitter(placement, 0.02, 1, 7) == with_jitter(placement, 0.02, 1, 7)


def test_a_part_lies_anywhere_in_what_the_bucket_shows() -> None:
    placement = place(100, 600, bucket_settings(512))  # a bucket of 256 x 1024
    width = placement.bucket_px[1]
    parts = [with_random_part(placement, 320, 1, step) for step in range(400)]
    assert {part.bucket_px for part in parts} == {(256, 320)}
    assert {part.crop_top_left_px[0] for part in parts} == {placement.crop_top_left_px[0]}
    lefts = [part.crop_top_left_px[1] - placement.crop_top_left_px[1] for part in parts]
    assert min(lefts) >= 0
    assert max(lefts) <= width - 320
    assert max(lefts) - min(lefts) > 0.95 * (width - 320)
    assert sum(lefts) / 400 == pytest.approx((width - 320) / 2, rel=0.1)
    assert with_random_part(placement, 9999, 1, 0) == placement


def test_small_pictures_are_listed() -> None:
    assert is_undersized((500, 500), (512, 512))
    assert not is_undersized((523, 523), (512, 512))
    assert is_undersized((522, 522), (512, 512))
    assert not is_undersized((512, 300), (512, 512))
    samples = [
        Sample(
            f"{side}.jpg", Path(f"{side}.jpg"), "", 1, "", (side, side + 8), "", place(side, side, bucket_settings(512))
        )
        for side in (300, 900)
    ]
    assert undersized_text(samples) == "300.jpg, size: 308x300, target: 512x512\n"
