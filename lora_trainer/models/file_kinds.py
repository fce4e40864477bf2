"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import zipfile
from pathlib import Path

_ZIP = b"PK\x03\x04"
_LEGACY_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46"  # pickle protocol 2, then PyTorch's magic number
_TORCH_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
_PICKLE = b"\x80"
_PICKLED_PART = "/data.pkl"  # in every archive that torch.save writes

# No safetensors file can start like these: the length of its header would be beyond the format's limit.
_OTHERS: dict[bytes, str] = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"RIFF": "a WebP picture or a sound",
    b"GIF8": "a GIF picture",
    b"GGUF": "a GGUF file",
    b"version https://git-lfs": 'a Git LFS pointer, not the model it stands for (run "git lfs pull" in its folder)',
    b"<!DOCTYPE": "a web page; the download has failed",
    b"<!doctype": "a web page; the download has failed",
    b"<html": "a web page; the download has failed",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
}


def is_torch_file(path: Path) -> bool:
    """Whether `torch.save` wrote it, in today's format or the one before, or it is a pickle that claims so."""
    first = first_bytes(path)
    if first.startswith(_ZIP):
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith(_PICKLED_PART) for name in archive.namelist())
        except zipfile.BadZipFile:
            return False
    claims = path.suffix.lower() in _TORCH_SUFFIXES and first.startswith(_PICKLE)
    return claims or first.startswith(_LEGACY_TORCH)


def known_stranger(path: Path) -> str | None:
    """What a file that is no model is, in words, or None when its first bytes are not known."""
    first = first_bytes(path)
    if first.startswith(_ZIP) and not is_torch_file(path):
        return "a ZIP archive that is incomplete or holds no PyTorch model"
    return next((words for magic, words in _OTHERS.items() if first.startswith(magic)), None)


def first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(32)
