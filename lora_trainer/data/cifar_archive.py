"""The pictures in `cifar-10-python.tar.gz` or `cifar-100-python.tar.gz`, which is neither unpacked nor trusted.

A batch in it is a pickle of a dictionary. Of the names that such a file may ask for there are three, those of which
numpy arrays of bytes consist; what they build here are inert holders.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_trainer.errors import Refusal
from lora_trainer.restricted_pickle import RestrictedUnpickler, UnknownName

SIDE_PX = 32
LARGEST_BATCH = 2**28  # bytes; the largest of the two, CIFAR-100's, has 2**27.2
BATCHES: Mapping[str, bytes] = {  # the files of training pictures, and under which key their classes are
    **{f"data_batch_{number}": b"labels" for number in range(1, 6)},
    "train": b"fine_labels",
}


@dataclass(frozen=True)
class CifarPictures:
    """(n, 32, 32, 3) RGB and (n,) classes."""

    pixels: NDArray[np.uint8]
    classes: NDArray[np.int64]


def read_cifar(path: Path) -> CifarPictures:
    """The training pictures in the order of the batches. Raises Refusal."""
    try:
        batches = dict(_batches(path))
    except UnknownName as error:
        raise Refusal(
            f"{path}: asks for {error}, which pictures do not need and which could run any program; "
            "download the archive again from its authors"
        ) from error
    except OSError as error:
        raise Refusal(f"{path}: cannot be read ({error}); download it again") from error
    except Exception as error:  # whatever a damaged or malicious stream leads to
        raise Refusal(f"{path}: not a readable CIFAR archive ({error}); download it again") from error
    whole = {"train"} if "train" in batches else set(BATCHES) - {"train"}
    if missing := sorted(whole - set(batches)):
        raise Refusal(f"{path}: {', '.join(missing)} not in the archive; download the python version again")
    found = [batches[name] for name in BATCHES if name in whole]
    return CifarPictures(
        np.concatenate([batch.pixels for batch in found]), np.concatenate([batch.classes for batch in found])
    )


def _batches(path: Path) -> Iterator[tuple[str, CifarPictures]]:
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            if name not in BATCHES or not member.isreg():
                continue
            if member.size > LARGEST_BATCH:
                raise pickle.UnpicklingError(f"{name} has {member.size / 2**20:.0f} MiB")
            file = archive.extractfile(member)
            assert file is not None
            yield name, _batch(name, RestrictedUnpickler(io.BytesIO(file.read()), _KNOWN, encoding="bytes").load())


def _batch(name: str, content: Any) -> CifarPictures:
    data, classes = content[b"data"].value, content[BATCHES[name]]
    if data is None or data.ndim != 2 or data.shape[1] != 3 * SIDE_PX**2 or len(classes) != len(data):
        raise pickle.UnpicklingError(f"{name} has no pictures of 32 x 32 pixels with a class for each")
    pixels = data.reshape(-1, 3, SIDE_PX, SIDE_PX).transpose(0, 2, 3, 1)
    return CifarPictures(np.ascontiguousarray(pixels), np.array([int(each) for each in classes], np.int64))


class _Dtype:
    """The one kind of number there is, bytes."""

    def __init__(self, kind: Any = b"", *_: Any) -> None:
        if kind not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of {kind!r}, not of bytes")

    def __setstate__(self, state: Any) -> None:
        """Its order of bytes and the like, of which single bytes have none."""


class _Array:
    """A numpy array, from the bytes in the pickle."""

    value: NDArray[np.uint8] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array that is not of bytes")
        self.value = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


def _array(*_: Any) -> _Array:
    return _Array()


_KNOWN: Mapping[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
}
