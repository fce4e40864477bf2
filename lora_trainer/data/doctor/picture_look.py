"""Open a picture file once, decode it no larger than needed, and say what it is and whether anything is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from PIL import Image

from lora_trainer.data.buckets import Size
from lora_trainer.data.doctor.fingerprints import Fingerprint, fingerprint
from lora_trainer.data.image_header import GREY, Progress
from lora_trainer.data.images import ORIENTATION, SIXTEEN_BIT, SWAPS_SIDES, BadPicture, decode, open_header
from lora_trainer.data.pairs import is_sixteen_bit

PLAIN = 8  # of 255, that compression makes of one colour
SMALL_PX = 128  # a side that is left of what is not a JPEG, at least
DRAFT_PX = 64  # JPEGs are decoded at an eighth where that is no less
ENDINGS = {  # of what Pillow calls a format; what is not here may have any ending
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe"),
    "MPO": (".jpg", ".jpeg", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
}
STILL = ("MPO",)  # whose further pictures are previews of the first

Read = Callable[[], bytes]


@dataclass(frozen=True)
class Look:
    """What a file showed. With a `problem`, which is the reason in the trainers' words, the rest may be missing.

    `kind` is Pillow's name of the format; `stored_px` is (height, width) in the file, `size_px` as a person sees it;
    a `plain` picture has one colour.
    """

    problem: str = ""
    kind: str = ""
    mode: str = ""
    stored_px: Size = (0, 0)
    orientation: int = 1
    frames: int = 1
    sixteen_bit: bool = False
    has_alpha: bool = False
    transparent: bool = False
    plain: bool = False
    bytes: int = 0
    digest: str = ""
    print: Fingerprint | None = None

    @property
    def size_px(self) -> Size:
        height, width = self.stored_px
        return (width, height) if self.orientation in SWAPS_SIDES else (height, width)

    @property
    def grey(self) -> bool:
        return self.mode in GREY

    def is_named(self, ending: str) -> bool:
        """Whether files of this kind are called so; a record of an LMDB has no ending."""
        return not ending or ending.lower() in ENDINGS.get(self.kind, (ending.lower(),))


def look_at_all(reads: Sequence[Read], workers: int, progress: Progress | None = None) -> tuple[Look, ...]:
    """A look for each file, in their order. Pillow decodes outside Python's lock, so that threads help."""
    found = []
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        for done, look in enumerate(pool.map(look_at, reads), 1):
            found.append(look)
            if progress is not None:
                progress(done, len(reads))
    finally:
        pool.shutdown(cancel_futures=True)  # a Ctrl-C does not wait for the rest
    return tuple(found)


def look_at(read: Read) -> Look:
    try:
        data = read()
    except BadPicture as error:
        return Look(str(error))
    except OSError as error:
        return Look(f"cannot be read ({error.strerror})")
    facts: dict[str, Any] = {"bytes": len(data), "digest": blake2b(data, digest_size=16).hexdigest()}
    try:
        with open_header(data) as image:
            return _opened(image, data, facts)
    except BadPicture as error:
        return Look(str(error), **facts)


def pixels_digest(read: Read) -> str:
    """Equal for pictures that show the same when they are decoded, "" where one cannot be."""
    try:
        pixels = decode(read())
    except (BadPicture, OSError):
        return ""
    return f"{pixels.shape[0]} {blake2b(pixels.tobytes(), digest_size=16).hexdigest()}"


def _opened(image: Image.Image, data: bytes, facts: dict[str, Any]) -> Look:
    """Raises BadPicture only where a trainer does."""
    facts |= {"kind": image.format or "", "mode": image.mode, "stored_px": (image.height, image.width)}
    try:
        facts["sixteen_bit"] = is_sixteen_bit(image, data)
        facts["has_alpha"] = bool(image.has_transparency_data)
        if image.format not in STILL:
            facts["frames"] = getattr(image, "n_frames", 1)
        image.draft(None, (DRAFT_PX, DRAFT_PX))
        image.load()
        orientation = image.getexif().get(ORIENTATION)
        facts["orientation"] = orientation if orientation in range(1, 9) else 1
        simple = _simple(image)
        if facts["has_alpha"]:
            alpha = simple if simple.mode == "RGBA" else image.convert("RGBA")
            facts["transparent"] = alpha.getchannel("A").getextrema() != (255, 255)
            simple = alpha
        small = simple.reduce(max(1, min(simple.size) // SMALL_PX))
        facts["plain"] = _is_plain(small)
        facts["print"] = fingerprint(small, facts["orientation"])
    except Exception as error:  # Pillow's readers meet damage with a dozen kinds of exception
        try:
            decode(data)
        except BadPicture as refused:
            return Look(str(refused), **facts)
        return Look(f"damaged ({error})", **facts)
    return Look(**facts)


def _is_plain(image: Image.Image) -> bool:
    """Whether it shows one colour."""
    bands: Any = image.getextrema()
    return all(high - low <= PLAIN for low, high in (bands if isinstance(bands[0], tuple) else [bands]))


def _simple(image: Image.Image) -> Image.Image:
    """In a mode that can be averaged."""
    if image.mode in ("RGB", "L", "CMYK", "RGBA"):
        return image
    if image.mode in SIXTEEN_BIT:
        return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
