"""What a file says of itself when it is opened: damage in the trainers' words, kinds, colours, turns."""

from __future__ import annotations

import io
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_trainer.data.doctor.picture_look import Look, look_at, look_at_all, pixels_digest
from lora_trainer.data.images import BadPicture, size_px


def picture(width: int = 160, height: int = 96, seed: int = 0) -> Image.Image:
    """Soft shapes that no two seeds share."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def look(data: bytes) -> Look:
    return look_at(lambda: data)


def test_a_picture_is_told_by_its_content() -> None:
    found = look(encoded(picture(), "JPEG"))
    assert (found.problem, found.kind, found.mode, found.size_px) == ("", "JPEG", "RGB", (96, 160))
    assert (found.frames, found.sixteen_bit, found.transparent, found.plain) == (1, False, False, False)
    assert found.is_named(".jpg") and found.is_named(".JPEG") and not found.is_named(".png")
    assert found.is_named("")


@pytest.mark.parametrize(
    "data", [b"", b"<html>", encoded(picture(), "JPEG")[:900], encoded(picture(), "PNG")[:3000]], ids=len
)
def test_damage_is_told_as_the_survey_of_a_training_tells_it(data: bytes) -> None:
    with pytest.raises(BadPicture) as refused:
        size_px(data)
    assert look(data).problem == str(refused.value) != ""


def test_what_cannot_be_read_is_told() -> None:
    assert look_at(Path("nowhere/a.png").read_bytes).problem == "cannot be read (No such file or directory)"


def test_colours_and_depths_are_told() -> None:
    deep = Image.fromarray(np.linspace(0, 65535, 96 * 96).astype(np.uint16).reshape(96, 96))
    assert look(encoded(deep, "PNG")).sixteen_bit
    assert look(encoded(picture().convert("CMYK"), "JPEG")).mode == "CMYK"
    assert look(encoded(picture().convert("L"), "PNG")).grey
    assert look(encoded(Image.new("RGB", (90, 90), (9, 99, 200)), "JPEG")).plain


def test_transparency_counts_where_something_shows_through() -> None:
    opaque, clear = picture().convert("RGBA"), picture().convert("RGBA")
    clear.putpixel((3, 4), (0, 0, 0, 200))
    both = [look(encoded(image, "PNG")) for image in (opaque, clear)]
    assert [(each.has_alpha, each.transparent) for each in both] == [(True, False), (True, True)]


def test_pictures_that_move_are_told_but_not_previews_in_a_photo() -> None:
    more = {"save_all": True, "append_images": [picture(seed=1), picture(seed=2)]}
    assert look(encoded(picture(), "WEBP", **more)).frames == 3
    assert look(encoded(picture(), "MPO", **more)).frames == 1


def test_a_turned_picture_has_the_size_that_people_see() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = look(encoded(picture(), "PNG", exif=exif))
    assert (turned.stored_px, turned.size_px, turned.orientation) == ((96, 160), (160, 96), 6)
    upright = look(encoded(picture().transpose(Image.Transpose.ROTATE_270), "PNG"))
    assert turned.print is not None and upright.print is not None
    apart = turned.print.pixels.astype(int) - upright.print.pixels
    assert abs(apart).max() <= 8
    lying = look(encoded(picture(), "PNG")).print
    assert lying is not None and abs(lying.pixels.astype(int) - upright.print.pixels).max() > 50


def test_looks_keep_their_order_and_are_counted() -> None:
    said: list[tuple[int, int]] = []
    sizes = [(60 + n, 64) for n in range(9)]
    reads = [lambda size=size: encoded(picture(*size), "PNG") for size in sizes]  # type: ignore[misc]
    looks = look_at_all(reads, 3, lambda done, total: said.append((done, total)))
    assert [each.size_px for each in looks] == [(height, width) for width, height in sizes]
    assert said[-1] == (9, 9)


def test_a_stop_does_not_wait_for_the_rest() -> None:
    begun: list[int] = []

    def read(number: int) -> bytes:
        begun.append(number)
        time.sleep(0.02)
        return b""

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look_at_all([partial(read, number) for number in range(500)], 2, stop)
    assert 3 <= len(begun) < 50


def test_pixels_are_the_same_whatever_the_compression() -> None:
    small, large = (encoded(picture(), "PNG", compress_level=level) for level in (9, 1))
    assert small != large
    assert pixels_digest(lambda: small) == pixels_digest(lambda: large) != ""
    assert pixels_digest(lambda: b"nothing") == ""
