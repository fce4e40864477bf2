"""What the two ends of a picture file tell without its middle: which file it is, and whether anything was cut off."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import BinaryIO

END_BYTES = 65536
MOST_PARTS = 256  # that are followed from one to the next
BEHIND_PIXELS = (b"IDAT", b"tIME", b"fcTL", b"fdAT")  # the chunks of a PNG that cannot turn the picture
TEXTS = (b"tEXt", b"zTXt", b"iTXt")  # those that can by these words, which Pillow reads as EXIF and XMP
TURNING = (b"exif\0", b"xmp\0", b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")


@dataclass(frozen=True)
class Ends:
    """The first END_BYTES of a file, and of what comes after them the last END_BYTES."""

    length: int
    head: bytes
    tail: bytes

    @property
    def last(self) -> bytes:
        return self.tail if len(self.tail) == END_BYTES else (self.head + self.tail)[-END_BYTES:]

    @property
    def kind(self) -> str:
        """The format, if it is one whose completeness the ends can tell."""
        return next((kind for kind, begins in KINDS.items() if begins(self.head)), "")

    @property
    def digest(self) -> str | None:
        """As ``digest`` makes it, None where that needs all bytes."""
        found = blake2b(digest_size=16)
        if self.length != len(self.head) + len(self.tail):
            if not self.kind:
                return None
            found.update(self.length.to_bytes(8, "little"))
        found.update(self.head)
        found.update(self.tail)
        return found.hexdigest()


def digest(data: bytes) -> str:
    """Of a picture file. Equal digests stand for equal pictures: they name caches and choose what is held out.

    Where the format compresses, pictures as good as never differ in their middle alone: the code of one is longer than
    that of another, or shifts all that follows, and a PNG's checksum of all pixels stands at its end. There the length
    and both ends count, so that 100,000 pictures are told apart by 13 GB and not by all their bytes. Of other formats
    (BMP, TIFF, PPM, TGA), where a pixel changes nothing but itself, and of files that the ends cover, all bytes count.
    """
    return ends_of(data).digest or blake2b(data, digest_size=16).hexdigest()


def ends_of(data: bytes) -> Ends:
    return Ends(len(data), data[:END_BYTES], data[max(END_BYTES, len(data) - END_BYTES) :])


def read_ends(file: BinaryIO) -> Ends:
    """Raises OSError."""
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(END_BYTES)
    file.seek(max(len(head), length - END_BYTES))
    return Ends(length, head, file.read(END_BYTES))


def is_complete(file: BinaryIO, ends: Ends) -> bool:
    """Whether the file provably ends where its format says, and all that turns the picture stands before its pixels.

    False is no more than a doubt: who has it must decode the file.
    """
    return ends.kind in PROOFS and PROOFS[ends.kind](file, ends)


def _png(file: BinaryIO, ends: Ends) -> bool:
    """From the last chunk of pixels that the tail shows, or over all chunks where they are large."""
    start = ends.length - len(ends.last) + ends.last.rfind(b"IDAT") - 4
    return _chunks_end(file, start, ends.length) or _chunks_end(file, 8, ends.length)


def _chunks_end(file: BinaryIO, at: int, length: int) -> bool:
    pixels = False
    for _ in range(MOST_PARTS):
        file.seek(max(0, at))
        size, kind = int.from_bytes(file.read(4), "big"), file.read(4)
        at += 12 + size
        if kind == b"IEND":
            return pixels and at <= length
        pixels = pixels or kind == b"IDAT"
        harmless = kind in BEHIND_PIXELS or (kind in TEXTS and not file.read(24).startswith(TURNING))
        if not kind or (pixels and not harmless):
            return False
    return False


def _jpeg(file: BinaryIO, ends: Ends) -> bool:
    """The end's marker comes after the pixels' begin, since a thumbnail in the header has one too; what cameras append
    may follow it. Within the pixels no two bytes look like it."""
    at = 2
    for _ in range(MOST_PARTS):
        file.seek(at)
        marker, size = file.read(2), int.from_bytes(file.read(2), "big")
        if marker == b"\xff\xda":
            return ends.last.rfind(b"\xff\xd9") >= max(0, at - ends.length + len(ends.last))
        if marker[:1] != b"\xff" or size < 2:
            return False
        at += 2 + size
    return False


def _webp(file: BinaryIO, ends: Ends) -> bool:
    return 8 + int.from_bytes(ends.head[4:8], "little") <= ends.length


def _avif(file: BinaryIO, ends: Ends) -> bool:
    at = 0
    for _ in range(MOST_PARTS):
        if at == ends.length:
            return True
        file.seek(at)
        size, _ = int.from_bytes(file.read(4), "big"), file.read(4)
        size = int.from_bytes(file.read(8), "big") if size == 1 else size
        if size < 8:
            return False
        at += size
    return False


def _gif(file: BinaryIO, ends: Ends) -> bool:
    return ends.last.endswith(b";")


KINDS: Mapping[str, Callable[[bytes], bool]] = {
    "PNG": lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"),
    "JPEG": lambda head: head.startswith(b"\xff\xd8\xff"),
    "WEBP": lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP",
    "AVIF": lambda head: head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"),
    "GIF": lambda head: head.startswith(b"GIF8"),
}
PROOFS: Mapping[str, Callable[[BinaryIO, Ends], bool]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "WEBP": _webp,
    "AVIF": _avif,
    "GIF": _gif,
}
