"""What the ends of files of each kind prove, and that digests tell files apart."""

from __future__ import annotations

import io
import struct
import zlib
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from lora_trainer.data.file_ends import END_BYTES, digest, ends_of, is_complete, read_ends

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 250, 3), np.uint8))
ORIENTATION = Image.Exif()
ORIENTATION[0x0112] = 6
TURNED = ORIENTATION.tobytes()  # as bytes, because AVIF takes what it writes out of the object


def saved(kind: str, image: Image.Image = NOISE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ends_well(data: bytes) -> bool:
    file = io.BytesIO(data)
    ends = read_ends(file)
    assert ends == ends_of(data)
    return is_complete(file, ends)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(pixel_bytes_a_chunk: int) -> bytes:
    """Noise, its pixels in chunks of this size."""
    pixels = zlib.compress(b"".join(b"\0" + bytes(row) for row in np.asarray(NOISE)))
    pieces = [pixels[at : at + pixel_bytes_a_chunk] for at in range(0, len(pixels), pixel_bytes_a_chunk)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 250, 240, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(b"IDAT", one) for one in pieces) + chunk(b"IEND", b"")


FILES = {
    "PNG": saved("PNG"),
    "PNG with EXIF": saved("PNG", exif=TURNED),
    "PNG of one chunk": png(1 << 20),
    "PNG of small chunks": png(100),
    "PNG of two pictures": saved("PNG", save_all=True, append_images=[NOISE.rotate(180)]),
    "JPEG": saved("JPEG"),
    "JPEG, progressive": saved("JPEG", progressive=True, exif=TURNED),
    "JPEG, large": saved("JPEG", NOISE.resize((700, 700)), quality=100),
    "WEBP": saved("WEBP", exif=TURNED),
    "WEBP, lossless": saved("WEBP", lossless=True),
    "GIF": saved("GIF"),
    **({"AVIF": saved("AVIF", exif=TURNED)} if features.check("avif") else {}),
}


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_ends_well_and_one_that_is_cut_off_does_not(name: str) -> None:
    data = FILES[name]
    assert ends_of(data).kind == name.partition(" ")[0].rstrip(",")
    assert ends_well(data)
    cuts = [1, 2, 3, 5, 12, *range(17, len(data), len(data) // 40)]
    assert not [cut for cut in cuts if ends_well(data[:-cut])]


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM", "TGA"])
def test_other_kinds_prove_nothing(kind: str) -> None:
    assert ends_of(saved(kind)).kind == ""
    assert not ends_well(saved(kind))


def test_what_cameras_append_is_no_damage() -> None:
    assert ends_well(FILES["JPEG"] + b"\0" * 3000)
    assert not ends_well(FILES["JPEG"] + b"\0" * END_BYTES)  # which is no more than a doubt


def test_the_end_of_a_thumbnail_is_not_that_of_the_picture() -> None:
    thumbnail = saved("JPEG", NOISE.resize((32, 32)))
    with_thumbnail = b"\xff\xd8" + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + FILES["JPEG"][2:]
    assert ends_well(with_thumbnail)
    assert not ends_well(with_thumbnail[:-1000])
    assert not ends_well(with_thumbnail[: len(thumbnail) + 10])


def test_a_png_that_is_turned_behind_its_pixels_has_to_be_decoded() -> None:
    data = FILES["PNG"]
    turned = chunk(b"eXIf", TURNED.removeprefix(b"Exif\0\0"))
    late = data[:-12] + turned + data[-12:]
    with Image.open(io.BytesIO(late)) as image:
        assert image.getexif()[0x0112] == 6
    assert not ends_well(late)
    assert ends_well(data[:33] + turned + data[33:])


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_words_behind_the_pixels_of_a_png(kind: bytes) -> None:
    data = FILES["PNG"]
    assert ends_well(data[:-12] + chunk(kind, b"date:create\0" + b"2026-11-21") + data[-12:])
    for key in (b"exif", b"xmp", b"Raw profile type exif", b"XML:com.adobe.xmp"):
        assert not ends_well(data[:-12] + chunk(kind, key + b"\0" + b"more") + data[-12:])


def test_a_digest_of_the_ends_or_of_all_bytes() -> None:
    small, large = FILES["JPEG"], FILES["JPEG, large"]
    assert len(small) < 2 * END_BYTES < len(large)
    assert digest(small) == blake2b(small, digest_size=16).hexdigest()
    ends = struct.pack("<Q", len(large)) + large[:END_BYTES] + large[-END_BYTES:]
    assert digest(large) == ends_of(large).digest == blake2b(ends, digest_size=16).hexdigest()
    bitmap = saved("BMP")
    assert ends_of(bitmap).digest is None
    assert digest(bitmap) == blake2b(bitmap, digest_size=16).hexdigest()


@pytest.mark.parametrize("at", [0, 1000, END_BYTES - 1, -END_BYTES, -1])
def test_a_changed_byte_or_length_changes_the_digest(at: int) -> None:
    large = FILES["JPEG, large"]
    changed = bytearray(large)
    changed[at] ^= 1
    longer = large[: len(large) // 2] + b"\0" + large[len(large) // 2 :]
    assert len({digest(large), digest(bytes(changed)), digest(longer)}) == 3


def test_pictures_that_differ_in_one_pixel_of_the_middle() -> None:
    for kind in ("PNG", "BMP", "JPEG"):
        base = NOISE.resize((500, 500))
        changed = base.copy()
        changed.putpixel((250, 250), (1, 2, 3))
        first, second = (
            saved(kind, one, **({"compress_level": 0} if kind == "PNG" else {})) for one in (base, changed)
        )
        assert len(first) > 2 * END_BYTES or kind == "JPEG"
        assert digest(first) != digest(second)
