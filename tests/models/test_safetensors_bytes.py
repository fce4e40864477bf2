"""The bytes depend on the content only, and are what the library reads."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load, save

from lora_trainer.models.safetensors_bytes import safetensors_bytes

TENSORS = {"b": torch.arange(6, dtype=torch.float16).reshape(2, 3), "a.ü": torch.ones(1), "empty": torch.zeros(0)}
METADATA = {f"key{number}": "Wert ü" for number in range(20)}


def test_order_does_not_matter() -> None:
    data = safetensors_bytes(TENSORS, METADATA)
    again = safetensors_bytes(dict(reversed(TENSORS.items())), dict(reversed(METADATA.items())))
    assert data == again


def test_the_library_reads_the_same_and_the_header_is_sorted_and_aligned() -> None:
    data = safetensors_bytes(TENSORS, METADATA)
    read = load(data)
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0
    assert list(header) == ["__metadata__", "a.ü", "b", "empty"]
    assert header["__metadata__"] == METADATA


def test_the_data_is_where_the_library_puts_it() -> None:
    data, plain = safetensors_bytes(TENSORS, {}), save(TENSORS)
    tail = 4 + 12  # bytes of "a.ü" and "b"
    assert data[-tail:] == plain[-tail:]
