"""The pictures of MNIST and its kin, `train-images-idx3-ubyte.gz` with the file of their labels beside it."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from lora_trainer.errors import Refusal

IMAGES, LABELS = 0x0803, 0x0801  # what the files begin with: bytes, of so many axes
MOST_BYTES = 2**32  # of unpacked numbers
MNIST_PX, PADDED_PX = 28, 32
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class MnistPictures:
    """(n, h, w) grey, and (n,) classes, or None without a file of labels."""

    pixels: NDArray[np.uint8]
    classes: NDArray[np.int64] | None


def read_mnist(path: Path, with_labels: bool = True) -> MnistPictures:
    """28 x 28 pixels get black borders to be 32 x 32, as is usual. Raises Refusal."""
    pixels = _numbers(path, IMAGES)
    if pixels.shape[1:] == (MNIST_PX, MNIST_PX):
        border = (PADDED_PX - MNIST_PX) // 2
        pixels = np.pad(pixels, ((0, 0), (border, border), (border, border)))
    if not with_labels:
        return MnistPictures(pixels, None)
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if labels == path or not labels.exists():
        raise Refusal(f"{path}: the file of its labels is not beside it; put it there, or give --labels none")
    classes = _numbers(labels, LABELS).astype(np.int64)
    if len(classes) != len(pixels):
        raise Refusal(f"{labels}: {len(classes)} labels for {len(pixels)} pictures; download both files again")
    return MnistPictures(pixels, classes)


def _numbers(path: Path, kind: int) -> NDArray[np.uint8]:
    """What an IDX file holds. Raises Refusal."""
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == GZIP
        with gzip.open(path) if packed else path.open("rb") as file:
            return _idx(file, kind)  # type: ignore[arg-type]
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise Refusal(f"{path}: not a readable file of MNIST ({error}); download it again") from error


def _idx(file: BinaryIO, kind: int) -> NDArray[np.uint8]:
    (found,) = struct.unpack(">I", file.read(4))
    if found != kind:
        raise ValueError(f"it begins with {found:#010x} instead of {kind:#010x}")
    axes = kind & 0xFF
    shape = struct.unpack(f">{axes}I", file.read(4 * axes))
    count = math.prod(shape)
    if not 0 < count <= MOST_BYTES:
        raise ValueError(f"it says to have {count} numbers")
    data = file.read(count)
    if len(data) != count:
        raise ValueError(f"{len(data)} of {count} numbers are there")
    return np.frombuffer(data, np.uint8).reshape(shape)
