"""Files that are read and written one tensor at a time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lora_trainer.errors import Refusal
from lora_trainer.models.file_facts import check_hashes
from lora_trainer.models.safetensors_header import read_header
from lora_trainer.models.tensor_files import DTYPES, MODELSPEC_HASH, open_tensors, write_tensor_file

TENSORS = {
    f"{word} ü": torch.arange(5).to(dtype) if dtype != torch.bool else torch.tensor([True, False])
    for word, dtype in DTYPES.items()
} | {"scalar": torch.tensor(2.5), "empty": torch.empty(0), "turned": torch.arange(6.0).view(2, 3).T}


def write(path: Path, metadata: dict[str, str]) -> list[str]:
    """Write `TENSORS`; the answer is in which order they were asked for."""
    asked = []

    def read(name: str) -> torch.Tensor:
        asked.append(name)
        return TENSORS[name]

    shapes = {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
    write_tensor_file(path, shapes, {name: tensor.dtype for name, tensor in TENSORS.items()}, read, metadata)
    return asked


def test_the_library_reads_what_was_written_tensor_by_tensor(tmp_path: Path) -> None:
    path = tmp_path / "größe.safetensors"
    asked = write(path, {"b": "ö", "a": "1"})
    assert sorted(asked) == sorted(TENSORS)  # each once
    found = load_file(path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name].float(), tensor.float())
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"a": "1", "b": "ö"}
    starts = [int.from_bytes(path.read_bytes()[:8], "little") % 8]
    assert starts == [0]
    assert read_header(path).dtypes["F8_E4M3 ü"] == "F8_E4M3"


def test_a_modelspec_hash_is_that_of_the_new_data(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path, {MODELSPEC_HASH: "0x12", "a": "1"})
    data = path.read_bytes()
    told = read_header(path).metadata[MODELSPEC_HASH]
    assert told == "0x" + hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    assert check_hashes(path, read_header(path).metadata) == {MODELSPEC_HASH: True}
    load_file(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"x is \(3,\) instead of \(2,\)"):
        write_tensor_file(path, {"x": (2,)}, {"x": torch.float32}, lambda name: torch.ones(3), {})
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_both_kinds_of_files_are_opened_alike(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(2, 3).half(), "b": torch.arange(4)}
    save_file(tensors, tmp_path / "a.safetensors", {"k": "v"})
    torch.save({"state_dict": tensors, "k": "v"}, tmp_path / "a.ckpt")
    for name in ("a.safetensors", "a.ckpt"):
        with open_tensors(tmp_path / name) as file:
            assert dict(file.shapes) == {"a": (2, 3), "b": (4,)}
            assert dict(file.dtypes) == {"a": torch.float16, "b": torch.int64}
            assert file.metadata == {"k": "v"}
            assert torch.equal(file.read("a"), tensors["a"])


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="there is no such file"), open_tensors(tmp_path / "a"):
        pass
    (tmp_path / "b.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(Refusal, match=r"b\.safetensors"), open_tensors(tmp_path / "b.safetensors"):
        pass
