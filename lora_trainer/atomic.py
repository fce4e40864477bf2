"""Files and folders that are either complete or not there, whenever the process is killed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

STAGED = ".tmp-"  # what a killed process may leave behind; swept by the next save


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    with staged_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def staged_file(path: Path) -> Iterator[BinaryIO]:
    """The same for what is too large to be held: a file to write to, which gets its name when the block ends well."""
    staged = path.with_name(f"{STAGED}{os.getpid()}-{path.name}")
    try:
        with staged.open("wb") as file:
            yield file
            _sync(file.fileno())
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


@contextlib.contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """A folder to fill; it gets its name when the block ends well, and disappears when it does not.

    The name must be free: replacing a folder would leave a moment in which neither the old nor the new one is there.
    """
    if final.exists():
        raise FileExistsError(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    sweep(final.parent)
    staged = final.parent / f"{STAGED}{final.name}"
    staged.mkdir()
    try:
        yield staged
        for file in staged.rglob("*"):
            if file.is_file():
                with file.open("rb+") as handle:
                    _sync(handle.fileno())
        sync_folder(staged)
        staged.rename(final)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    sync_folder(final.parent)


def remove_folder(folder: Path) -> None:
    """Delete a folder so that a kill in the middle leaves no half of it under its own name."""
    doomed = folder.parent / f"{STAGED}delete-{folder.name}"
    folder.rename(doomed)
    shutil.rmtree(doomed)


def sweep(parent: Path) -> None:
    """Remove what killed processes left staged in this folder."""
    for left in parent.glob(f"{STAGED}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename durable. Windows has no handle for a folder and needs none: its renames are journalled."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOTSUP,
        ):  # a network file system without fsync; renames still are atomic
            raise
