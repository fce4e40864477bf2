"""Copies of every kind are found, and pictures that only resemble each other are not."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lora_trainer.data.doctor import duplicates
from lora_trainer.data.doctor.duplicates import (
    ALIKE,
    MIRRORED,
    MOST_COMPARED,
    SAME_FILE,
    SAME_PIXELS,
    Copies,
    find_copies,
    is_blank,
)
from lora_trainer.data.doctor.fingerprints import SIDE_PX, Fingerprint, fingerprint


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Shapes on a ground, each seed others."""
    draw_of = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(draw_of.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(9):
        left, top, width, height = (draw_of.random(4) * [size[0], size[1], size[0] / 2, size[1] / 2]).tolist()
        draw.ellipse((left, top, left + width + 9, top + height + 9), fill=tuple(draw_of.integers(0, 256, 3).tolist()))
    return image


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def copies(*images: Image.Image) -> list[tuple[str, tuple[int, ...]]]:
    """As files that all differ."""
    found = find_copies(
        [str(number) for number in range(len(images))],
        [fingerprint(image) for image in images],
        lambda number: images[number].tobytes().hex(),
    )
    return [(each.kind, each.numbers) for each in found]


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((150, 112), Image.Resampling.LANCZOS),
    "larger": lambda image: image.resize((700, 525), Image.Resampling.BICUBIC),
    "compressed": lambda image: jpeg(image, 30),
    "darker": lambda image: image.point(lambda value: int(value * 0.9)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_alike(change: str) -> None:
    others = [scene(seed) for seed in range(1, 20)]
    assert copies(scene(0), *others, CHANGES[change](scene(0))) == [(ALIKE, (0, 20))]


def test_equal_files_equal_pixels_and_mirror_images_are_told_apart() -> None:
    images = [scene(0), scene(1), scene(0), jpeg(scene(1), 60), scene(2).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    images += [scene(2), scene(3), scene(3)]
    digests = ["a", "b", "other file", "c", "d", "e", "f", "f"]
    prints = [fingerprint(image) for image in images]
    found = find_copies(digests, prints, lambda number: images[number].tobytes().hex())
    assert found == (
        Copies(SAME_FILE, (6, 7)), Copies(SAME_PIXELS, (0, 2)), Copies(ALIKE, (1, 3)), Copies(MIRRORED, (4, 5)),
    )  # fmt: skip


def test_different_pictures_are_no_copies() -> None:
    assert copies(*(scene(seed) for seed in range(60))) == []


def test_a_chain_of_copies_is_one_group() -> None:
    assert copies(scene(0), jpeg(scene(0), 50), jpeg(scene(0), 20), scene(4)) == [(ALIKE, (0, 1, 2))]


def test_pictures_of_one_colour_are_no_copies_of_each_other() -> None:
    plain = [Image.new("RGB", (90, 90), colour) for colour in ("white", "#fefefe", "red")]
    assert all(is_blank(fingerprint(image)) for image in plain)
    assert copies(*plain) == []


def test_files_that_cannot_be_read_are_no_copies() -> None:
    assert find_copies(["", "", "a"], [None, None, None], lambda number: "") == ()


def test_transparency_lies_on_white() -> None:
    clear = scene(0).convert("RGBA")
    clear.paste((255, 0, 0, 0), (0, 0, 160, 240))
    white = scene(0)
    white.paste((255, 255, 255), (0, 0, 160, 240))
    assert fingerprint(clear) == fingerprint(white)


def test_groups_fall_apart_by_folder() -> None:
    assert Copies(ALIKE, (0, 2, 3, 5)).within(["a", "x", "b", "a", "x", "b"]) == [
        Copies(ALIKE, (0, 3)), Copies(ALIKE, (2, 5)),
    ]  # fmt: skip


def test_bits_are_counted_without_newer_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.array([[0, 1, 2**64 - 1], [255, 2**63, 2**32 + 3]], np.uint64)
    assert duplicates._ones(words).tolist() == [[0, 1, 64], [8, 1, 3]]
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert duplicates._ones(words).tolist() == [[0, 1, 64], [8, 1, 3]]


def test_ten_thousand_pictures_are_compared_in_seconds() -> None:
    draw = np.random.default_rng(0)
    assert MOST_COMPARED >= 10_000
    numbers = draw.integers(0, 2**63, (10_000, 2)).tolist()
    colours = draw.integers(0, 256, (10_000, SIDE_PX, SIDE_PX, 3), np.uint8)
    prints = [Fingerprint(a, b, pixels.tobytes()) for (a, b), pixels in zip(numbers, colours, strict=True)]
    prints[9_000] = prints[17]
    began = time.perf_counter()
    found = find_copies([str(n) for n in range(10_000)], prints, lambda number: "")
    assert found == (Copies(ALIKE, (17, 9_000)),)
    assert time.perf_counter() - began < 20
