"""By what a file of weights is known again, wherever it lies."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from lora_trainer.models.fresh_description import SUFFIX as DESCRIPTION
from lora_trainer.models.fresh_description import trained_files

WINDOW = 1 << 20  # bytes at the start, the middle and the end


def weights_identity(path: Path) -> str:
    """By which a checkpoint is known again wherever it lies: sizes and parts of its files, not their dates.

    To a description of a new model belongs what it takes weights from. Raises Refusal for one that is wrong.
    """
    digest = blake2b(digest_size=16)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path).as_posix() if file != path else ''}:{size}".encode())
        with file.open("rb") as handle:
            for start in sorted({0, max(0, size // 2 - WINDOW // 2), max(0, size - WINDOW)}):
                handle.seek(start)
                digest.update(handle.read(WINDOW))
    if path.is_file() and path.suffix.lower() == DESCRIPTION:
        for trained in trained_files(path):
            digest.update(weights_identity(trained).encode())
    return digest.hexdigest()
