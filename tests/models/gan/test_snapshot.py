"""Snapshots are told apart by content, whatever the length of their header."""

from __future__ import annotations

from pathlib import Path

import torch

from lora_trainer.models.gan.snapshot import read_snapshot, save_snapshot


def test_a_header_whose_length_begins_like_a_pickle(tmp_path: Path) -> None:
    """Headers are padded to eight bytes, so one in 32 has a length whose first byte is 0x80."""
    path, first = tmp_path / "snapshot.safetensors", set()
    for length in range(0, 256, 8):
        facts = {"resolution": 32, "padding": "x" * length}
        save_snapshot(path, "creps", {"G": {"a": torch.ones(2)}}, facts)
        first.add(path.read_bytes()[0])
        read = read_snapshot(path)
        assert (read.cfg, read.options) == ("creps", facts)
        assert read.networks["G"]["a"].tolist() == [1, 1]
    assert 0x80 in first and len(first) == 32
