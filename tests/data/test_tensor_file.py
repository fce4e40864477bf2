"""Files of tensors that are written while the caller goes on."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from lora_trainer.data import tensor_file
from lora_trainer.data.tensor_file import read_tensors, write_tensors, writing_behind


def one(value: float) -> dict[str, torch.Tensor]:
    return {"x": torch.full((2,), value)}


def test_files_are_written_behind_and_all_of_them_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write, written = threading.Semaphore(0), []

    def slow(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        assert may_write.acquire(timeout=30)
        write_tensors(path, tensors)
        written.append(path.name)

    monkeypatch.setattr(tensor_file, "write_tensors", slow)
    with writing_behind(3) as write:
        for number in range(3):
            write(tmp_path / str(number), one(float(number)))
        assert written == []  # nobody waited
        late = threading.Thread(target=write, args=(tmp_path / "3", one(3.0)))
        late.start()
        late.join(0.2)
        assert late.is_alive()  # as three wait already
        may_write.release(10)
        late.join(30)
        assert not late.is_alive()
        write(tmp_path / "0", one(9.0))  # the first to come counts
    assert sorted(written) == ["0", "1", "2", "3"]
    for number in range(4):
        read = read_tensors(tmp_path / str(number))
        assert read is not None
        assert read["x"].tolist() == [number] * 2


def test_what_cannot_be_written_behind_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), writing_behind(8) as write:
        write(tmp_path / "there is no folder" / "a", one(0.0))
        write(tmp_path / "b", one(0.0))
    assert read_tensors(tmp_path / "b") is not None


def test_what_was_given_is_written_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another problem"), writing_behind(8) as write:
        write(tmp_path / "a", one(0.0))
        write(tmp_path / "there is no folder" / "b", one(0.0))
        raise ValueError("another problem")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
