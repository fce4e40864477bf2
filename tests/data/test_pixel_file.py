"""Pixels are kept whole or not at all, and what is damaged or in the way only costs time."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lora_trainer.data.pixel_file import DAY_S, PixelFolder, mapped

KEY = "0123"


@pytest.fixture
def folder(tmp_path: Path) -> PixelFolder:
    return PixelFolder(tmp_path / "kept", 1)


def rows(count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3000), np.uint8)


def fill(folder: PixelFolder, pixels: np.ndarray) -> None:
    file = folder.start(pixels.size)
    assert file is not None
    with ThreadPoolExecutor(3) as pool:
        for index in reversed(range(len(pixels))):
            pool.submit(file.put, index * pixels.shape[1], pixels[index])
    file.keep(KEY, {"seen": [1, 2]})


def test_what_is_put_is_found(folder: PixelFolder) -> None:
    assert (folder.facts(KEY), folder.pixels(KEY, 24000)) == (None, None)
    fill(folder, rows())
    path = folder.pixels(KEY, 24000)
    assert path is not None
    assert np.array_equal(mapped(str(path)), rows().reshape(-1))
    assert folder.facts(KEY) == {"seen": [1, 2]}
    assert not mapped(str(path)).flags.writeable


def test_another_size_or_content_is_not_taken(folder: PixelFolder) -> None:
    fill(folder, rows())
    path = folder.path / f"{KEY}.pixels"
    assert folder.pixels(KEY, 23999) is None
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert folder.pixels(KEY, 24000) is None
    path.write_bytes(whole)
    assert folder.pixels(KEY, 24000) == path
    path.with_suffix(".json").write_text("{")
    assert folder.pixels(KEY, 24000) is None
    fill(folder, rows())
    assert folder.pixels(KEY, 24000) == path


def test_nothing_is_kept_with_0(tmp_path: Path) -> None:
    folder = PixelFolder(tmp_path / "kept", 0)
    assert folder.start(10) is None
    folder.note(KEY, 1)
    assert not folder.path.exists()
    small = PixelFolder(tmp_path / "kept", 1e-6)
    assert small.start(2000) is None
    small.note(KEY, [1])
    assert small.facts(KEY) == [1]


def test_an_unfinished_file_goes(folder: PixelFolder) -> None:
    file = folder.start(100)
    assert file is not None
    file.put(0, rows(1))
    file.discard()
    file.keep(KEY, None)
    assert not list(folder.path.iterdir())


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file of this process may grow beyond 10,000 bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, old)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit to set")
def test_a_full_disk_is_no_error(folder: PixelFolder, little_room: None, caplog: pytest.LogCaptureFixture) -> None:
    fill(folder, rows())
    assert folder.pixels(KEY, 24000) is None
    assert not list(folder.path.iterdir())
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"{folder.path}: decoded pictures cannot be kept there (File too large)" in caplog.text


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = PixelFolder(tmp_path / "file" / "kept", 1)
    assert folder.start(10) is None
    folder.note(KEY, [1])
    assert folder.facts(KEY) is None
    assert "decoded pictures cannot be kept there" in caplog.text


def test_more_than_the_disk_holds_is_not_begun(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert PixelFolder(tmp_path, 2**40).start(2**60) is None
    assert "has no room for 1073741824.0 GiB of decoded pictures" in caplog.text
    assert not list(tmp_path.iterdir())


def test_what_nobody_uses_is_swept(folder: PixelFolder) -> None:
    fill(folder, rows())
    for name, days in {"killed.unfinished": 2, "old.pixels": 40, "old.json": 40, "new.unfinished": 0}.items():
        (folder.path / name).write_bytes(b"x")
        age = (folder.path / name).stat().st_mtime - days * DAY_S
        os.utime(folder.path / name, (age, age))
    for kept in (folder.path / f"{KEY}.pixels", folder.path / f"{KEY}.json"):
        age = kept.stat().st_mtime - 40 * DAY_S
        os.utime(kept, (age, age))
    assert folder.pixels(KEY, 24000) is not None  # which is a use
    file = folder.start(100)
    assert file is not None
    file.discard()
    assert sorted(path.name for path in folder.path.iterdir()) == [f"{KEY}.json", f"{KEY}.pixels", "new.unfinished"]
