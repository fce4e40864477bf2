"""CIFAR's archive is read, and no pickle in it can do anything."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from lora_trainer.data import cifar_archive
from lora_trainer.data.cifar_archive import read_cifar
from lora_trainer.errors import Refusal

WriteTar = Callable[..., Path]


class PickledByPython2(pickle._Pickler):
    """Texts and bytes as Python 2 wrote them, which is how the authors' files are."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    def save_str(self, value: str) -> None:
        self.save_bytes(value.encode("latin1"))

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or value.__qualname__}\n".encode())
        self.memoize(value)

    dispatch[bytes] = save_bytes
    dispatch[str] = save_str
    dispatch[type(np.zeros)] = save_global
    dispatch[type] = save_global


def python2(content: Any) -> bytes:
    buffer = io.BytesIO()
    PickledByPython2(buffer, protocol=2).dump(content)
    return buffer.getvalue()


def pixels(number: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (count, 3072), np.uint8)


def batch(number: int, key: bytes = b"labels") -> dict[bytes, Any]:
    return {b"batch_label": b"training batch", key: [number, 9, 0, 3], b"data": pixels(number)}


@pytest.fixture
def write_tar(tmp_path: Path) -> WriteTar:
    def write(files: dict[str, bytes], name: str = "cifar-10-python.tar.gz") -> Path:
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            for place, data in files.items():
                member = tarfile.TarInfo(f"cifar-10-batches-py/{place}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return tmp_path / name

    return write


def five(write: Callable[[Any], bytes]) -> dict[str, bytes]:
    names = (
        "data_batch_4",
        "data_batch_1",
        "readme.html",
        "data_batch_5",
        "data_batch_2",
        "data_batch_3",
        "test_batch",
    )
    return {name: write(batch(int(name[-1]))) if "data" in name else b"x" for name in names}


@pytest.mark.parametrize("write", [python2, lambda content: pickle.dumps(content, protocol=4)])
def test_the_batches_come_in_their_order(write_tar: WriteTar, write: Callable[[Any], bytes]) -> None:
    path = write_tar(five(write))
    found = read_cifar(path)
    assert found.pixels.shape == (20, 32, 32, 3)
    for number in range(1, 6):
        planes = pixels(number)[1].reshape(3, 32, 32)
        assert np.array_equal(found.pixels[number * 4 - 3], planes.transpose(1, 2, 0))
    assert found.classes.tolist()[::4] == [1, 2, 3, 4, 5]
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]


def test_cifar_100_has_fine_labels(write_tar: WriteTar) -> None:
    path = write_tar({"train": python2({**batch(99, b"fine_labels"), b"coarse_labels": [1, 1, 1, 1]})})
    assert read_cifar(path).classes.tolist() == [99, 9, 0, 3]


class Harmful:
    def __reduce__(self) -> Any:
        return os.system, ("touch harmed",)


def test_other_names_are_refused(write_tar: WriteTar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_tar({"data_batch_1": pickle.dumps(Harmful(), protocol=2)})
    with pytest.raises(Refusal) as caught:
        read_cifar(path)
    assert str(caught.value) == (
        f"{path}: asks for {os.system.__module__}.system, which pictures do not need and which could run any program; "
        "download the archive again from its authors"
    )
    assert not (tmp_path / "harmed").exists()


def refusal(path: Path) -> str:
    with pytest.raises(Refusal) as caught:
        read_cifar(path)
    return str(caught.value)


def test_what_is_no_cifar(write_tar: WriteTar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = five(python2)
    del files["data_batch_2"], files["data_batch_5"]
    path = write_tar(files)
    assert refusal(path) == f"{path}: data_batch_2, data_batch_5 not in the archive; download the python version again"
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(path.read_bytes()[:3000])
    assert refusal(cut).startswith(f"{cut}: ")
    assert refusal(cut).endswith("download it again")
    cut.write_bytes(b"no tar")
    assert refusal(cut).startswith(f"{cut}: not a readable CIFAR archive (")
    floats = write_tar({"data_batch_1": python2({**batch(1), b"data": np.zeros((4, 3072))})})
    assert "(an array of b'f8', not of bytes)" in refusal(floats)
    short = write_tar({"data_batch_1": python2({**batch(1), b"labels": [1]})})
    assert "(data_batch_1 has no pictures of 32 x 32 pixels with a class for each)" in refusal(short)
    monkeypatch.setattr(cifar_archive, "LARGEST_BATCH", 2**10)
    assert "(data_batch_4 has 0 MiB)" in refusal(write_tar(five(python2)))
