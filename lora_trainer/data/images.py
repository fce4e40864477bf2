"""Read any picture file as 8-bit RGB pixels the right way up, and fit them to a bucket."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lora_trainer.data.buckets import Placement

Pixels = NDArray[np.uint8]  # (h, w, 3), RGB

SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # "I" is what some files of 16-bit grey open as
SWAPS_SIDES = (5, 6, 7, 8)  # EXIF orientations that turn the picture by a quarter
ORIENTATION = 0x0112


class BadPicture(Exception):
    """A file that cannot be used as a picture; the message is the reason, without the file's name."""


def read_picture(path: Path, *, on_white: bool = True) -> Pixels:
    """(h, w, 3) RGB pixels of the file's first frame.

    The EXIF orientation is applied. Transparency is laid on white, or with ``on_white`` False it is left out, so that
    the colours below it stay as they are. Sixteen-bit grey is scaled to eight bits. Colour profiles are not applied.
    Raises BadPicture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadPicture(f"cannot be read ({error.strerror})") from error
    return decode(data, on_white=on_white)


def decode(data: bytes, *, on_white: bool = True) -> Pixels:
    """``read_picture`` for the bytes of a file."""
    image = _load(data)
    try:
        return np.array(_rgb(ImageOps.exif_transpose(image), on_white))
    except Exception as error:
        raise BadPicture(f"cannot be converted to RGB ({error})") from error


def opacity(data: bytes) -> NDArray[np.uint8] | None:
    """(h, w) from 0, transparent, to 255; None where no part of the picture is transparent. Raises BadPicture."""
    if not open_header(data).has_transparency_data:
        return None
    image = _load(data)
    try:
        found = np.array(ImageOps.exif_transpose(image).convert("RGBA").getchannel("A"))
    except Exception as error:
        raise BadPicture(f"its transparency cannot be read ({error})") from error
    return found if (found < 255).any() else None


def size_px(data: bytes) -> tuple[int, int]:
    """(height, width) after the EXIF orientation; decodes everything, so that damage is found. Raises BadPicture."""
    image = _load(data)
    return _upright_px(image, image.getexif())


def header_size_px(file: BinaryIO) -> tuple[int, int]:
    """``size_px`` without decoding, for a file in which nothing after the pixels turns them. Raises BadPicture."""
    with _reasons():
        image = Image.open(file)
        # the plain class's: that of a PNG decodes it to see what comes after the pixels
        exif = Image.Image.getexif(image)
    if not all(image.size):
        raise BadPicture("it has no pixels")
    return _upright_px(image, exif)


def _upright_px(image: Image.Image, exif: Image.Exif) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if exif.get(ORIENTATION) in SWAPS_SIDES else (height, width)


def resize_and_crop(pixels: Pixels, placement: Placement) -> Pixels:
    """The part of the picture that its bucket shows, (bucket height, bucket width, 3)."""
    height, width = placement.resized_px
    if pixels.shape[:2] != placement.resized_px:
        shrinks = height < pixels.shape[0] or width < pixels.shape[1]
        # Hamming is Pillow's nearest to averaging over the covered area at any ratio: 41 to 51 dB from the exact
        # average on a photograph, against 34 to 53 dB for Box, which only fits whole ratios.
        kernel = Image.Resampling.HAMMING if shrinks else Image.Resampling.LANCZOS
        pixels = np.array(Image.fromarray(pixels).resize((width, height), kernel))
    top, left = placement.crop_top_left_px
    bucket_height, bucket_width = placement.bucket_px
    return pixels[top : top + bucket_height, left : left + bucket_width]


def open_header(data: bytes) -> Image.Image:
    """The file's picture with its size and mode, before anything is decoded. Raises BadPicture."""
    if not data:
        raise BadPicture("the file is empty")
    with _reasons():
        image = Image.open(io.BytesIO(data))
    if not all(image.size):
        raise BadPicture("it has no pixels")
    return image


def _load(data: bytes) -> Image.Image:
    image = open_header(data)
    with _reasons():
        image.load()
        image.getexif()
    return image


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """What Pillow has to say about a file, as BadPicture."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise BadPicture("not a picture, or of a kind that Pillow does not know") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise BadPicture(f"more than {limit} million pixels; make it smaller") from error
    except Exception as error:  # Pillow's readers meet damage with a dozen kinds of exception
        raise BadPicture(f"damaged ({error})") from error


def _rgb(image: Image.Image, on_white: bool) -> Image.Image:
    if image.mode in SIXTEEN_BIT:
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))  # 65535 becomes 255; convert() would clip
    if not image.has_transparency_data:
        return image.convert("RGB")
    coloured = image.convert("RGBA")
    if not on_white:
        return coloured.convert("RGB")
    white = Image.new("RGBA", coloured.size, "white")
    return Image.alpha_composite(white, coloured).convert("RGB")
