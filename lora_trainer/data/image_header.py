"""What a picture file says of itself before anything of it is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lora_trainer.data.images import SIXTEEN_BIT, BadPicture, open_header

HEAD_BYTES = 16384  # where nearly every picture says what it is
GREY = ("1", "L", "LA", "La", "F", *SIXTEEN_BIT)
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "AVIF", "TIFF", "GIF", "JPEG2000", "PPM", "TGA")


@dataclass(frozen=True)
class Header:
    """`size_px` is (height, width) before an EXIF orientation; `channels` is 1 or 3, transparency not counted."""

    size_px: tuple[int, int]
    channels: int
    has_alpha: bool


def read_header(head: bytes, whole: Callable[[], bytes]) -> Header:
    """From the first bytes of a file where they suffice, otherwise from all of it. Raises BadPicture."""
    if len(head) < HEAD_BYTES:
        return header(head)
    if head.startswith(b"\x89PNG") and b"IDAT" not in head:  # transparency may be told behind them
        return header(whole())
    try:
        return header(head)
    except BadPicture:
        return header(whole())


def header(data: bytes) -> Header:
    """Raises BadPicture."""
    with open_header(data) as image:
        if image.format not in FORMATS:
            raise BadPicture(f"of the kind {image.format}, which data sets have not; save it as PNG")
        channels = 1 if image.mode in GREY else 3
        return Header((image.height, image.width), channels, bool(image.has_transparency_data))
