"""Reading the tensors of a checkpoint file, without ever running code that is in it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.models.file_kinds import is_torch_file
from lora_trainer.models.safetensors_header import Shapes, read_header

_NESTED = "state_dict"  # under which training programs store the tensors beside their own notes


@dataclass(frozen=True)
class StateFile:
    """Tensors on the CPU, independent of the file, and the file's texts."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    @property
    def shapes(self) -> Shapes:
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}


def read_state_file(path: Path) -> StateFile:
    """Read a .safetensors file or a PyTorch file (.ckpt, .pt), told apart by content. Raises Refusal."""
    return _read_torch(path) if is_torch_file(path) else _read_safetensors(path)


def _read_safetensors(path: Path) -> StateFile:
    metadata = dict(read_header(path).metadata)  # first, because its refusals say more
    try:
        with safe_open(path, framework="pt") as file:
            return StateFile({name: file.get_tensor(name) for name in file.keys()}, metadata)  # noqa: SIM118 - no dict
    except SafetensorError as error:
        raise Refusal(f"{path}: the .safetensors file is damaged ({error}); copy or download it again") from error


def _read_torch(path: Path) -> StateFile:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Refusal(
            f"{path}: the file holds Python objects besides tensors, which could run any program when opened, "
            "so it is not opened; convert it to .safetensors with a tool you trust"
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise Refusal(f"{path}: the PyTorch file is damaged ({error}); copy or download it again") from error
    if not isinstance(content, Mapping):
        raise Refusal(f"{path}: the file holds a {type(content).__name__}, not named tensors; give a base model")
    nested = content.get(_NESTED, content)
    tensors = {str(name): value for name, value in nested.items() if isinstance(value, Tensor)}
    return StateFile(tensors, {str(name): value for name, value in content.items() if isinstance(value, str)})
