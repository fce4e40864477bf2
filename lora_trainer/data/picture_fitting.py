"""How pictures of any size and kind become those of a data set: cropped, resized, without transparency, grey or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from lora_trainer.data.image_header import Header, header
from lora_trainer.data.images import BadPicture, Pixels, decode, opacity

Size = tuple[int, int]  # (height, width)
Raw = bytes | Pixels  # a file, or pixels (h, w, 3) or (h, w)
Transform = Callable[[Image.Image, Size, Image.Resampling], Image.Image]


@dataclass(frozen=True)
class Fitting:
    """What is to be done; `size_px` None leaves the size as it is."""

    transform: str = "none"
    size_px: Size | None = None
    resize_filter: str = "lanczos"
    alpha: str = "refuse"
    channels: str = "keep"

    def planned(self, found: Header) -> Header:
        """What becomes of a picture; what nothing is to be done about stays to be seen."""
        size = found.size_px
        if self.size_px is not None:
            if self.transform in WIDE:
                size = (max(self.size_px),) * 2
            elif self.transform != "none" or _same_shape(size, self.size_px):
                size = self.size_px
        channels = {"keep": found.channels, "rgb": 3, "gray": 1}[self.channels]
        return replace(found, size_px=size, channels=channels, has_alpha=found.has_alpha and self.alpha == "refuse")

    def enlarges(self, found: Header) -> bool:
        """Whether pixels are made up for such a picture."""
        if self.size_px is None:
            return False
        scales = [wanted / there for wanted, there in zip(self.size_px, found.size_px, strict=True)]
        return (min(scales) if self.transform == "pad" else max(scales)) > 1


def header_of(raw: Raw) -> Header:
    """Raises BadPicture."""
    if isinstance(raw, bytes):
        return header(raw)
    return Header((raw.shape[0], raw.shape[1]), 1 if raw.ndim == 2 else 3, False)


def fitted(raw: Raw, fitting: Fitting) -> Image.Image:
    """The picture in mode L or RGB. Raises BadPicture."""
    pixels = raw
    if isinstance(raw, bytes):
        pixels = DECODERS[fitting.alpha](raw)
        if header(raw).channels == 1:
            pixels = pixels[:, :, 0]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if fitting.channels != "keep":
        image = image.convert({"rgb": "RGB", "gray": "L"}[fitting.channels])
    if fitting.size_px is None:
        return image
    return TRANSFORMS[fitting.transform](image, fitting.size_px, FILTERS[fitting.resize_filter])


def _resized(image: Image.Image, size_px: Size, kernel: Image.Resampling) -> Image.Image:
    """Not out of shape: what has another one is not resized."""
    if not _same_shape((image.height, image.width), size_px):
        return image
    return _scaled(image, size_px, kernel)


def _center_crop(image: Image.Image, size_px: Size, kernel: Image.Resampling) -> Image.Image:
    """The largest part in the middle that has the shape."""
    height, width = size_px
    scale = min(image.height / height, image.width / width)
    part_height, part_width = max(1, round(height * scale)), max(1, round(width * scale))
    left, top = (image.width - part_width) // 2, (image.height - part_height) // 2
    return _scaled(image.crop((left, top, left + part_width, top + part_height)), size_px, kernel)


def _center_crop_wide(image: Image.Image, size_px: Size, kernel: Image.Resampling) -> Image.Image:
    return _on_square(_center_crop(image, size_px, kernel), size_px)


def _pad(image: Image.Image, size_px: Size, kernel: Image.Resampling) -> Image.Image:
    """All of it, in the middle of a square."""
    scale = min(size_px[0] / image.height, size_px[1] / image.width)
    inner = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    return _on_square(_scaled(image, inner, kernel), size_px)


def _on_square(image: Image.Image, size_px: Size) -> Image.Image:
    """With black around it."""
    side = max(size_px)
    square = Image.new(image.mode, (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _scaled(image: Image.Image, size_px: Size, kernel: Image.Resampling) -> Image.Image:
    height, width = size_px
    return image if image.size == (width, height) else image.resize((width, height), kernel)


def _same_shape(one: Size, other: Size) -> bool:
    return one[0] * other[1] == one[1] * other[0]


def _on_black(data: bytes) -> Pixels:
    pixels, opaque = decode(data, on_white=False), opacity(data)
    if opaque is None:
        return pixels
    dimmed = (pixels.astype(np.uint16) * opaque[:, :, None] + 127) // 255
    return dimmed.astype(np.uint8)


def _opaque(data: bytes) -> Pixels:
    if header(data).has_alpha:
        raise BadPicture("has an alpha channel; give --alpha white, black or drop")
    return decode(data)


WIDE = ("center-crop-wide", "pad")  # what ends on a square
TRANSFORMS: Mapping[str, Transform] = {
    "none": _resized,
    "center-crop": _center_crop,
    "center-crop-wide": _center_crop_wide,
    "pad": _pad,
}
FILTERS: Mapping[str, Image.Resampling] = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}
DECODERS: Mapping[str, Callable[[bytes], Pixels]] = {
    "refuse": _opaque,
    "white": decode,
    "black": _on_black,
    "drop": lambda data: decode(data, on_white=False),
}
