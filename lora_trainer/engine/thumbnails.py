"""Pictures small enough to be written into a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

QUALITY = 82  # of WebP
PREFIX = "data:image/webp;base64,"


def open_small(file: Path, side_px: int) -> Image.Image:
    """A picture, RGB, of which no side is longer. Raises what Pillow raises for a file that is no picture."""
    with Image.open(file) as image:
        image.draft("RGB", (side_px, side_px))  # JPEGs are decoded no larger than needed
        return shrunk(image, side_px)


def shrunk(image: Image.Image, side_px: int) -> Image.Image:
    small = image.convert("RGB")
    small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return small


def data_uri(image: Image.Image) -> str:
    """What an `<img>` takes for an address, so that no file is needed beside the page."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=4)
    return PREFIX + base64.b64encode(buffer.getvalue()).decode("ascii")
