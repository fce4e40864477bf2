"""Files of tensors that may be larger than the memory: read one tensor at a time, and written one at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lora_trainer.atomic import staged_file
from lora_trainer.errors import Refusal
from lora_trainer.models.file_kinds import is_torch_file
from lora_trainer.models.safetensors_header import LENGTH_BYTES, Shapes, read_header
from lora_trainer.models.state_files import read_state_file

MODELSPEC_HASH = "modelspec.hash_sha256"  # of the tensors' bytes, behind 0x
_HASH_DIGITS = 64
_ALIGNMENT_BYTES = 8

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip
_WORDS = {dtype: word for word, dtype in DTYPES.items()}


class TensorFile(Protocol):
    """Named tensors on disk or in memory, and the file's texts."""

    @property
    def shapes(self) -> Shapes: ...

    @property
    def dtypes(self) -> Mapping[str, torch.dtype]: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU."""
        ...


@dataclass(frozen=True)
class _InMemory:
    """A PyTorch file, which cannot be read in parts."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    @property
    def shapes(self) -> Shapes:
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    @property
    def dtypes(self) -> Mapping[str, torch.dtype]:
        return {name: tensor.dtype for name, tensor in self.tensors.items()}

    def read(self, name: str) -> Tensor:
        return self.tensors[name]


@dataclass(frozen=True)
class _OnDisk:
    """An open .safetensors file."""

    path: Path
    file: safe_open
    shapes: Shapes
    dtypes: Mapping[str, torch.dtype]
    metadata: Mapping[str, str]

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self.file.get_tensor(name)  # type: ignore[no-untyped-call]
        return tensor


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Open a .safetensors file, or load a PyTorch file; told apart by content. Raises Refusal."""
    if not path.is_file():
        raise Refusal(f"{path}: there is no such file; correct the path")
    if is_torch_file(path):
        state = read_state_file(path)
        yield _InMemory(state.tensors, state.metadata)
        return
    header = read_header(path)  # first, because its refusals say more
    try:
        with safe_open(path, framework="pt") as file:
            words = {name: file.get_slice(name).get_dtype() for name in header.shapes}
            if strange := sorted(set(words.values()) - DTYPES.keys()):
                raise Refusal(
                    f"{path}: the file has tensors of the type {strange[0]}; give one in float or half precision"
                )
            yield _OnDisk(path, file, header.shapes, {n: DTYPES[word] for n, word in words.items()}, header.metadata)
    except SafetensorError as error:
        raise Refusal(f"{path}: the .safetensors file is damaged ({error}); copy or download it again") from error


def write_tensor_file(
    path: Path,
    shapes: Shapes,
    dtypes: Mapping[str, torch.dtype],
    read: Callable[[str], Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write a .safetensors file of these tensors, asking for one at a time; the same content gives the same bytes.

    A ModelSpec hash among the metadata is replaced by that of the new content.
    """
    texts = dict(metadata)
    if MODELSPEC_HASH in texts:
        texts[MODELSPEC_HASH] = "0x" + "0" * _HASH_DIGITS
    names = sorted(shapes, key=lambda name: (-dtypes[name].itemsize, name))  # so that each one is aligned
    digest = hashlib.sha256()
    with staged_file(path) as file:
        file.write(_header(names, shapes, dtypes, texts))
        for name in names:
            data = _bytes(read(name).to(dtypes[name]), name, shapes[name])
            digest.update(data)
            file.write(data)
        if MODELSPEC_HASH in texts:
            texts[MODELSPEC_HASH] = f"0x{digest.hexdigest()}"
            file.seek(0)
            file.write(_header(names, shapes, dtypes, texts))


def cast_to(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """On the CPU, and in this format if it is of floating numbers."""
    return tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()


def _header(names: list[str], shapes: Shapes, dtypes: Mapping[str, torch.dtype], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    start = 0
    for name in names:
        size = dtypes[name].itemsize
        for side in shapes[name]:
            size *= side
        entries[name] = {
            "dtype": _WORDS[dtypes[name]],
            "shape": list(shapes[name]),
            "data_offsets": [start, start + size],
        }
        start += size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _bytes(tensor: Tensor, name: str, shape: tuple[int, ...]) -> bytes | memoryview:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} is {tuple(tensor.shape)} instead of {shape}")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""
