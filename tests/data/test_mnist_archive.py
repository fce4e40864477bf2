"""MNIST's files are read with their labels, padded to 32 pixels."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from lora_trainer.data.mnist_archive import read_mnist
from lora_trainer.errors import Refusal

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def idx(numbers: np.ndarray) -> bytes:
    return struct.pack(f">I{numbers.ndim}I", 0x0800 + numbers.ndim, *numbers.shape) + numbers.tobytes()


def write(folder: Path, side: int = 28, packed: bool = True, count: int = 3) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side), np.uint8)
    for name, numbers in ((IMAGES, pixels), (LABELS, np.array([5, 0, 4], np.uint8))):
        path = folder / (name if packed else name.removesuffix(".gz"))
        path.write_bytes(gzip.compress(idx(numbers)) if packed else idx(numbers))
    return folder / (IMAGES if packed else IMAGES.removesuffix(".gz"))


@pytest.mark.parametrize("packed", [True, False])
def test_pictures_and_classes(tmp_path: Path, packed: bool) -> None:
    found = read_mnist(write(tmp_path, packed=packed))
    assert found.pixels.shape == (3, 32, 32)
    assert found.classes is not None
    assert found.classes.tolist() == [5, 0, 4]
    inner = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    assert np.array_equal(found.pixels[:, 2:30, 2:30], inner)
    assert found.pixels.sum() == inner.sum()


def test_other_sizes_stay(tmp_path: Path) -> None:
    assert read_mnist(write(tmp_path, side=16)).pixels.shape == (3, 16, 16)


def test_labels_may_be_missing_where_they_are_not_wanted(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / LABELS).unlink()
    assert read_mnist(path, with_labels=False).classes is None
    with pytest.raises(Refusal) as caught:
        read_mnist(path)
    assert str(caught.value) == f"{path}: the file of its labels is not beside it; put it there, or give --labels none"


def test_what_does_not_fit(tmp_path: Path) -> None:
    path = write(tmp_path, count=2)
    with pytest.raises(Refusal, match="3 labels for 2 pictures; download both files again"):
        read_mnist(path)
    whole = path.read_bytes()
    for data, reason in (
        (whole[:-20], "Compressed file ended"),
        (b"", "unpack requires"),
        (gzip.compress(idx(np.zeros((2, 2), np.uint8))), "it begins with 0x00000802 instead of 0x00000803"),
        (gzip.compress(struct.pack(">4I", 0x0803, 2**31, 2**31, 4) + b"x"), "it says to have"),
        (gzip.compress(struct.pack(">4I", 0x0803, 9, 28, 28) + b"x"), "1 of 7056 numbers are there"),
    ):
        path.write_bytes(data)
        with pytest.raises(Refusal, match=f"not a readable file of MNIST .*{reason}"):
            read_mnist(path)
