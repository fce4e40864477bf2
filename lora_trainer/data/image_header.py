"""What a picture file says of itself before anything of it is decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b

from lora_trainer.data.image_archive import ImageArchive
from lora_trainer.data.image_listing import Entry, bad_file, first_of
from lora_trainer.data.images import SIXTEEN_BIT, BadPicture, open_header

Progress = Callable[[int, int], None]  # done, total

HEAD_BYTES = 16384  # where nearly every picture says what it is
GREY = ("1", "L", "LA", "La", "F", *SIXTEEN_BIT)
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "AVIF", "TIFF", "GIF", "JPEG2000", "PPM", "TGA")


@dataclass(frozen=True)
class Header:
    """`size_px` is (height, width) before an EXIF orientation; `channels` is 1 or 3, transparency not counted."""

    size_px: tuple[int, int]
    channels: int
    has_alpha: bool


def read_headers(
    archive: ImageArchive, entries: Sequence[Entry], progress: Progress | None = None
) -> tuple[dict[str, Header], list[Entry], list[str]]:
    """What each picture is, the entries with checksums, and a sentence for each that cannot be read (the first 20)."""
    headers: dict[str, Header] = {}
    marked, problems = [], []
    for done, entry in enumerate(entries, 1):
        try:
            head = archive.head(entry.name, HEAD_BYTES)
            headers[entry.name] = read_header(head, partial(archive.read, entry.name))
            marked.append(entry if entry.checksum else replace(entry, checksum=blake2b(head).hexdigest()))
        except BadPicture as error:
            problems.append(bad_file(archive.path, entry.name, error))
        if progress is not None:
            progress(done, len(entries))
    return headers, marked, first_of(problems)


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
