"""The names, shapes and metadata of a safetensors file, read without loading PyTorch or any tensor.

The format: 8 bytes with the header's length (little endian), the header as JSON, then the tensors' bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.errors import Refusal

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_METADATA = "__metadata__"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class SafetensorsHeader:
    """What a file says about itself."""

    shapes: Shapes
    metadata: Mapping[str, str]
    dtypes: Mapping[str, str]  # "F32", "F16", "BF16", ...


def read_header(path: Path) -> SafetensorsHeader:
    """Read the header. Raises Refusal for a file that is no safetensors file or lacks a part of its data."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 2 <= header_bytes <= MAX_HEADER_BYTES:
            raise _unreadable(path, "its header has an impossible length")
        if LENGTH_BYTES + header_bytes > size:
            raise _truncated(path, size, LENGTH_BYTES + header_bytes)
        text = file.read(header_bytes)
    try:
        entries = json.loads(text)
        metadata = dict(entries.pop(_METADATA, {}))
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
        dtypes = {name: str(entry["dtype"]) for name, entry in entries.items()}
        data_bytes = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise _unreadable(path, "its header cannot be understood") from error
    expected = LENGTH_BYTES + header_bytes + data_bytes
    if size < expected:
        raise _truncated(path, size, expected)
    return SafetensorsHeader(shapes, _strings(metadata), dtypes)


def _strings(metadata: Mapping[Any, Any]) -> dict[str, str]:
    return {str(key): value for key, value in metadata.items() if isinstance(value, str)}


def _unreadable(path: Path, reason: str) -> Refusal:
    return Refusal(f"{path}: this is not a .safetensors file, {reason}; give the file that was meant, or copy it again")


def _truncated(path: Path, size: int, expected: int) -> Refusal:
    return Refusal(
        f"{path}: the file is incomplete, it has {size:,} of at least {expected:,} bytes; copy or download it again"
    )
