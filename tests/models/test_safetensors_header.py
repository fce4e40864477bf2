"""A header is read without the tensors, and a damaged file is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lora_trainer.errors import Refusal
from lora_trainer.models.safetensors_bytes import safetensors_bytes
from lora_trainer.models.safetensors_header import read_header


def _file(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "modèle 1.safetensors"
    path.write_bytes(data)
    return path


def _with_header(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def test_names_shapes_and_metadata(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(2, 3), "scalar": torch.tensor(1.0), "none": torch.zeros(0)}
    header = read_header(_file(tmp_path, safetensors_bytes(tensors, {"schlüssel": "wert"})))
    assert header.shapes == {"a": (2, 3), "scalar": (), "none": (0,)}
    assert header.metadata == {"schlüssel": "wert"}


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    data = safetensors_bytes({"a": torch.zeros(2, 3)}, {})
    header_end = len(data) - 24
    for kept in (12, header_end - 1, header_end, len(data) - 1):
        path = _file(tmp_path, data[:kept])
        with pytest.raises(Refusal) as refusal:
            read_header(path)
        expected = header_end if kept < header_end else len(data)  # without the header only its own end is known
        assert refusal.value.problems == (
            f"{path}: the file is incomplete, it has {kept} of at least {expected} bytes; copy or download it again",
        )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        b"this is a text that somebody named like a model",
        _with_header(b"not json"),
        _with_header(b"\xff\xfe\xfd\xfc"),
        _with_header(b"[1, 2]"),
        _with_header(b'{"a": 3}'),
        _with_header(b'{"a": {"dtype": "F32"}}'),
        _with_header(b'{"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 0]}}'),
        _with_header(b'{"a": {"dtype": "F32", "shape": [], "data_offsets": [0]}}'),
        _with_header(b'{"__metadata__": 7}'),
        _with_header(b"[" * 200_000),
    ],
)
def test_garbage_is_refused(tmp_path: Path, data: bytes) -> None:
    path = _file(tmp_path, data)
    with pytest.raises(Refusal, match=r"this is not a \.safetensors file, its header") as refusal:
        read_header(path)
    assert str(path) in str(refusal.value)


def test_metadata_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"a": "b", "n": 3}}).encode()
    assert read_header(_file(tmp_path, _with_header(header))).metadata == {"a": "b"}
