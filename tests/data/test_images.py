"""Every kind of picture file becomes the same pixels, the right way up, or a reason."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.data.buckets import Placement
from lora_trainer.data.images import (
    BadPicture,
    decode,
    opacity,
    open_header,
    read_picture,
    resize_and_crop,
    size_px,
)


def quadrants() -> np.ndarray:
    """(40, 24, 3): red, green above blue, white; so that every turn and mirror can be told apart."""
    pixels = np.zeros((40, 24, 3), np.uint8)
    pixels[:20, :12] = (255, 0, 0)
    pixels[:20, 12:] = (0, 255, 0)
    pixels[20:, :12] = (0, 0, 255)
    pixels[20:, 12:] = (255, 255, 255)
    return pixels


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# What must be done to the upright picture so that a viewer that obeys the tag shows it upright again.
STORED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda p: np.rot90(p, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](quadrants())))
    data = saved(stored, exif=exif)
    assert size_px(data) == (40, 24)
    np.testing.assert_array_equal(decode(data), quadrants())


def test_transparency_is_laid_on_white() -> None:
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[:, 0] = (255, 0, 0, 255)
    rgba[:, 1] = (0, 0, 0, 0)
    rgba[:, 2] = (0, 0, 255, 128)
    pixels = decode(saved(Image.fromarray(rgba)))
    assert pixels[0].tolist() == [[255, 0, 0], [255, 255, 255], [127, 127, 255]]
    grey = Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8), "LA")
    assert decode(saved(grey)).tolist() == [[[10, 10, 10], [255, 255, 255]]]


def test_palette_with_and_without_transparency() -> None:
    palette = Image.new("P", (3, 1))
    palette.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250])
    for x in range(3):
        palette.putpixel((x, 0), x)
    assert decode(saved(palette)).tolist() == [[[250, 0, 0], [0, 250, 0], [0, 0, 250]]]
    assert decode(saved(palette, transparency=1)).tolist() == [[[250, 0, 0], [255, 255, 255], [0, 0, 250]]]


def test_grey_bilevel_and_cmyk() -> None:
    assert decode(saved(Image.new("L", (2, 1), 77))).tolist() == [[[77, 77, 77]] * 2]
    assert decode(saved(Image.new("1", (1, 1), 1))).tolist() == [[[255, 255, 255]]]
    cyan = decode(saved(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=100))
    assert cyan.shape == (16, 16, 3)
    assert np.abs(cyan.astype(int) - (0, 255, 255)).max() <= 3


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = np.array([[0, 257, 32768, 65535]], np.uint16)
    assert decode(saved(Image.fromarray(grey)))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, duration=50)
    assert decode(data)[0, 0].tolist() == [255, 0, 0]


def test_path_with_blanks_and_letters_of_all_kinds(tmp_path: Path) -> None:
    path = tmp_path / "фото 写真 ü" / "ein Bild.png"
    path.parent.mkdir()
    path.write_bytes(saved(Image.fromarray(quadrants())))
    np.testing.assert_array_equal(read_picture(path), quadrants())


def test_what_cannot_be_used_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(data: bytes) -> str:
        with pytest.raises(BadPicture) as from_size:
            size_px(data)
        with pytest.raises(BadPicture) as from_pixels:
            decode(data)
        assert str(from_size.value) == str(from_pixels.value)
        return str(from_size.value)

    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for kind in ("PNG", "JPEG", "WEBP", "BMP"):
        data = saved(Image.fromarray(noise), kind)
        assert reason(data[: len(data) // 2]).startswith(("damaged (", "not a picture"))
    assert reason(b"") == "the file is empty"
    assert reason(b"<html>404</html>") == "not a picture, or of a kind that Pillow does not know"
    with pytest.raises(BadPicture, match=r"cannot be read \(No such file"):
        read_picture(tmp_path / "gone.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    assert reason(saved(Image.new("1", (2000, 2000)))) == "more than 2 million pixels; make it smaller"


def test_png_with_a_flipped_byte_is_found() -> None:
    data = bytearray(saved(Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8))))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(BadPicture):
        size_px(bytes(data))


def test_resize_and_crop() -> None:
    pixels = quadrants()
    untouched = Placement((40, 24), (40, 24), (0, 0))
    np.testing.assert_array_equal(resize_and_crop(pixels, untouched), pixels)
    cut = resize_and_crop(pixels, Placement((16, 8), (40, 24), (12, 8)))
    np.testing.assert_array_equal(cut, pixels[12:28, 8:16])

    half = resize_and_crop(pixels, Placement((16, 8), (20, 12), (2, 2)))
    assert half.shape == (16, 8, 3)
    assert half[0, 0].tolist() == [255, 0, 0]
    assert half[-1, -1].tolist() == [255, 255, 255]
    twice = resize_and_crop(pixels, Placement((80, 48), (80, 48), (0, 0)))
    assert twice.shape == (80, 48, 3)
    assert twice[20, 36].tolist() == [0, 255, 0]


def test_shrinking_averages_what_it_covers() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    shrunk = resize_and_crop(stripes, Placement((16, 16), (16, 16), (0, 0)))
    assert np.abs(shrunk[:, 1:-1].astype(int) - 128).max() <= 2


def test_a_header_is_read_without_the_pixels() -> None:
    data = saved(Image.fromarray(quadrants()))
    with open_header(data[: len(data) // 2]) as image:
        assert (image.size, image.mode) == ((24, 40), "RGB")
    for broken, reason in ((b"", "the file is empty"), (b"no picture", "not a picture")):
        with pytest.raises(BadPicture, match=reason):
            open_header(broken)


def test_colours_below_transparency_stay_where_it_is_a_mask() -> None:
    rgba = np.zeros((40, 24, 4), np.uint8)
    rgba[..., :3] = quadrants()
    rgba[:, :12, 3] = 51
    rgba[:, 12:, 3] = 255
    data = saved(Image.fromarray(rgba))
    np.testing.assert_array_equal(decode(data, on_white=False), quadrants())
    np.testing.assert_array_equal(opacity(data), rgba[..., 3])
    assert opacity(saved(Image.fromarray(quadrants()))) is None
    rgba[..., 3] = 255
    assert opacity(saved(Image.fromarray(rgba))) is None
    exif = Image.Exif()
    exif[0x0112] = 6
    rgba[:10, :, 3] = 0
    turned = opacity(saved(Image.fromarray(np.ascontiguousarray(STORED[6](rgba))), exif=exif))
    np.testing.assert_array_equal(turned, rgba[..., 3])
