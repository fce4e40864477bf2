"""Small pictures for the page: as they are, with what a bucket cuts away, and what is alike side by side."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw, ImageOps

from lora_trainer.data.doctor.dataset import Entry
from lora_trainer.data.doctor.fit import Fit
from lora_trainer.data.images import BadPicture, decode
from lora_trainer.engine.run_facts import Thumbnail
from lora_trainer.engine.thumbnails import data_uri, shrunk

SIDE_PX = 224
CUT_COLOUR, CUT_SHARE = (179, 38, 30), 0.62  # over what is cut away
LARGEST_PX = 80_000_000  # what is larger takes too long


def thumbnail(entry: Entry, caption: str, fit: Fit | None = None) -> Thumbnail | None:
    """With a `fit`, what its bucket cuts away is shaded. None for what cannot be shown."""
    try:
        small = _small(entry.read())
    except (OSError, BadPicture):
        return None
    if fit is not None:
        small = shaded(small, fit)
    return Thumbnail(data_uri(small), caption, *small.size)


def shaded(image: Image.Image, fit: Fit) -> Image.Image:
    """What is cut away under a colour, behind a line around what is kept."""
    top, left, bottom, right = fit.kept
    box = (
        round(left * image.width), round(top * image.height), round(right * image.width), round(bottom * image.height)
    )  # fmt: skip
    result = Image.blend(image, Image.new("RGB", image.size, CUT_COLOUR), CUT_SHARE)
    result.paste(image.crop(box), box[:2])
    edge = (box[0], box[1], max(box[0], box[2] - 1), max(box[1], box[3] - 1))
    ImageDraw.Draw(result).rectangle(edge, outline="white")
    return result


def _small(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        if image.width * image.height > LARGEST_PX:
            raise BadPicture("too large")
        if image.format in ("JPEG", "MPO"):
            image.draft("RGB", (SIDE_PX, SIDE_PX))
            return shrunk(ImageOps.exif_transpose(image), SIDE_PX)
    return shrunk(Image.fromarray(decode(data)), SIDE_PX)
