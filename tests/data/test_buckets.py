"""Bucket numbers worked out by hand, and what must hold for every picture."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.data.buckets import (
    BucketSettings,
    Placement,
    aspect_error,
    bucket_sizes,
    place,
    size_condition,
    with_random_crop,
)
from lora_trainer.errors import Refusal

SDXL = BucketSettings((1024, 1024), upscale=True)
SDXL_SHRINK = BucketSettings((1024, 1024))

# (height, width) of the landscape half. Widths from 1088 with the tallest multiple of 64 that stays within 1024 * 1024
# pixels; the heights from 256 with the widest give four more, as no side is over 2048.
LANDSCAPE = {
    *((1024, 1024), (960, 1088), (896, 1152), (832, 1216), (768, 1280), (768, 1344), (704, 1408), (704, 1472)),
    *((640, 1536), (640, 1600), (576, 1664), (576, 1728), (576, 1792), (512, 1856), (512, 1920), (512, 1984)),
    *((512, 2048), (448, 2048), (384, 2048), (320, 2048), (256, 2048)),
}


def test_the_sdxl_list() -> None:
    sizes = bucket_sizes(SDXL)
    assert set(sizes) == LANDSCAPE | {(width, height) for height, width in LANDSCAPE}
    assert [size for size in sizes if size[1] == 256] == [(2048, 256)]
    assert sizes[0] == (2048, 256)
    assert sizes[-1] == (512, 2048)


def test_list_bounds_are_rounded_to_steps() -> None:
    rough = BucketSettings((512, 512), min_reso_px=300, max_reso_px=900, upscale=True)
    sides = {side for size in bucket_sizes(rough) for side in size}
    assert min(sides) == 256
    assert max(sides) == 960


@pytest.mark.parametrize(
    ("height", "width", "bucket", "resized", "crop"),
    [
        (1024, 1024, (1024, 1024), (1024, 1024), (0, 0)),
        (448, 2048, (448, 2048), (448, 2048), (0, 0)),  # a listed size is taken as it is
        (512, 512, (1024, 1024), (1024, 1024), (0, 0)),  # enlarged
        (2000, 3000, (832, 1216), (832, 1248), (0, 16)),  # 3:2; 1216/832 = 1.46 is nearer than 1280/768 = 1.67
        (3000, 2000, (1216, 832), (1248, 832), (16, 0)),
        (500, 3000, (320, 2048), (341, 2048), (10, 0)),  # 6.0; 2048/320 = 6.4 is nearer than 2048/384 = 5.33
        (50, 50, (1024, 1024), (1024, 1024), (0, 0)),
    ],
)
def test_nearest_bucket_when_enlarging_is_allowed(
    height: int,
    width: int,
    bucket: tuple[int, int],
    resized: tuple[int, int],
    crop: tuple[int, int],
) -> None:
    assert place(height, width, SDXL) == Placement(bucket, resized, crop)


@pytest.mark.parametrize(
    ("height", "width", "bucket", "resized", "crop"),
    [
        (1024, 1024, (1024, 1024), (1024, 1024), (0, 0)),
        (1000, 700, (960, 640), (1000, 700), (20, 30)),  # small enough: not resized, up to 63 px cut
        (2000, 3000, (832, 1216), (832, 1248), (0, 16)),  # 1254 x 836: 832 high gives 1216/832, 1216 wide 1216/768
        (3000, 2000, (1216, 832), (1248, 832), (16, 0)),
        (500, 3000, (384, 2304), (384, 2304), (0, 0)),  # 2508 x 418: 2496 wide gives 6.5, 384 high 2304/384 = 6 exactly
        (64, 64, (64, 64), (64, 64), (0, 0)),
        (127, 64, (64, 64), (127, 64), (31, 0)),
    ],
)
def test_shrinking_only(
    height: int,
    width: int,
    bucket: tuple[int, int],
    resized: tuple[int, int],
    crop: tuple[int, int],
) -> None:
    assert place(height, width, SDXL_SHRINK) == Placement(bucket, resized, crop)


@pytest.mark.parametrize(("height", "width"), [(50, 50), (63, 800), (100, 40000)])
def test_too_small_or_too_narrow_is_a_sentence(height: int, width: int) -> None:
    with pytest.raises(
        ValueError, match=rf"^{height} x {width} px \(height x width\) is too small or too narrow: .* 64"
    ):
        place(height, width, SDXL_SHRINK)


def test_without_buckets_everything_covers_the_resolution() -> None:
    settings = BucketSettings((512, 650), enabled=False)
    assert place(512, 648, settings) == Placement((512, 648), (512, 648), (0, 0))
    assert place(1000, 1000, settings) == Placement((512, 648), (648, 648), (68, 0))
    assert place(10, 40, settings) == Placement((512, 648), (512, 2048), (0, 700))


def test_settings_that_leave_no_bucket() -> None:
    with pytest.raises(Refusal, match="max_resolution 32 x 32 has a side below 64 px"):
        BucketSettings((32, 32))
    with pytest.raises(Refusal, match="bucket_reso_steps is 0"):
        BucketSettings((512, 512), step_px=0)
    with pytest.raises(Refusal) as caught:
        BucketSettings((128, 4096), upscale=True)
    assert caught.value.problems == (
        "min_bucket_reso 256 is larger than a side of 128 x 4096",
        "max_bucket_reso 2048 is smaller than a side of 128 x 4096",
    )
    BucketSettings((128, 4096))  # the bounds are not read when nothing is enlarged


def test_size_condition_tells_the_real_crop_also_when_mirrored() -> None:
    placement = Placement((64, 64), (64, 101), (0, 10))
    assert size_condition(640, 1010, placement) == (640, 1010, 0, 10, 64, 64)
    assert size_condition(640, 1010, placement, mirrored=True) == (640, 1010, 0, 27, 64, 64)


def test_random_crop_reaches_every_offset_and_stays_inside() -> None:
    placement = Placement((64, 64), (64, 67), (0, 1))
    lefts = {with_random_crop(placement, 7, step, "crop").crop_top_left_px for step in range(60)}
    assert lefts == {(0, 0), (0, 1), (0, 2), (0, 3)}
    assert with_random_crop(placement, 7, 5) == with_random_crop(placement, 7, 5)


def test_aspect_error_is_of_width_over_height() -> None:
    assert aspect_error(500, 3000, place(500, 3000, SDXL)) == pytest.approx(0.4)


sides = st.integers(1, 6000)
steps = st.sampled_from([8, 32, 64])
resolutions = st.tuples(st.integers(256, 1536), st.integers(256, 1536))


@given(height=sides, width=sides, resolution=resolutions, step=steps, upscale=st.booleans())
def test_every_placement_is_possible(
    height: int, width: int, resolution: tuple[int, int], step: int, upscale: bool
) -> None:
    settings = BucketSettings(resolution, step_px=step, upscale=upscale)
    try:
        placement = place(height, width, settings)
    except ValueError:
        longest, shortest = max(height, width), min(height, width)
        scale = min(1.0, (resolution[0] * resolution[1] / (height * width)) ** 0.5)
        assert not upscale
        assert shortest * scale < step + 1 or longest * scale < step + 1
        return
    area_px = placement.bucket_px[0] * placement.bucket_px[1]
    rounding_px = 0 if upscale else 2 * max(placement.resized_px) + 2  # half a pixel more on each side, in proportion
    assert area_px <= resolution[0] * resolution[1] + rounding_px
    for whole, part, start in zip(placement.resized_px, placement.bucket_px, placement.crop_top_left_px, strict=True):
        assert part % step == 0
        assert part > 0
        assert 0 <= start <= whole - part
    if not upscale and height * width <= resolution[0] * resolution[1]:
        assert placement.resized_px == (height, width)


@given(
    shape=st.tuples(st.integers(64, 6000), st.integers(64, 6000)).filter(lambda shape: max(shape) <= 10 * min(shape)),
    resolution=st.sampled_from([(512, 512), (640, 960), (768, 768), (832, 1216), (1024, 1024)]),
)
def test_usual_shapes_never_exceed_the_area(shape: tuple[int, int], resolution: tuple[int, int]) -> None:
    placement = place(*shape, BucketSettings(resolution))
    assert placement.bucket_px[0] * placement.bucket_px[1] <= resolution[0] * resolution[1]


@given(height=sides, width=sides, resolution=resolutions)
def test_without_buckets_every_picture_covers(height: int, width: int, resolution: tuple[int, int]) -> None:
    placement = place(height, width, BucketSettings(resolution, enabled=False))
    assert placement.bucket_px == (resolution[0] // 8 * 8, resolution[1] // 8 * 8)
    spare = [whole - part for whole, part in zip(placement.resized_px, placement.bucket_px, strict=True)]
    assert min(spare) == 0
    assert [start * 2 - left for start, left in zip(placement.crop_top_left_px, spare, strict=True)] in (
        [0, 0],
        [-1, 0],
        [0, -1],
    )
