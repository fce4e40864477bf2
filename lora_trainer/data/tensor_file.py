"""A few tensors as one file that proves itself: complete, unchanged, and made of finite numbers."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from lora_trainer.atomic import write_bytes

WRITERS = 4  # a disk that is told to keep a file makes its writer wait, and serves several at a time
Write = Callable[[Path, Mapping[str, torch.Tensor]], None]


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors of any shape under their names, atomically."""
    # copies, because safetensors refuses two names of the same memory
    whole = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    write_bytes(path, save(whole, metadata={"checksum": _checksum(whole)}))


@contextmanager
def writing_behind(most: int) -> Iterator[Write]:
    """Like ``write_tensors``, but the files are written while the caller goes on; all are when the block has ended.

    The first to come for a path is written; ``most`` wait in memory. Raises OSError, at a later call or at the end.
    """
    waiting: deque[Future[None]] = deque()
    taken: set[Path] = set()
    with ThreadPoolExecutor(WRITERS) as pool:

        def write(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
            if path in taken:  # as of a picture that lies in the data set twice
                return
            taken.add(path)
            while len(waiting) >= max(1, most):
                waiting.popleft().result()
            waiting.append(pool.submit(write_tensors, path, tensors))

        yield write
        while waiting:
            waiting.popleft().result()


def read_tensors(path: Path) -> dict[str, torch.Tensor] | None:
    """The tensors, or None when the file is missing, damaged or holds a number that is not finite."""
    try:
        data = path.read_bytes()
        header_bytes = int.from_bytes(data[:8], "little")
        checksum = json.loads(data[8 : 8 + header_bytes])["__metadata__"]["checksum"]
        tensors = load(data)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    whole = checksum == _checksum(tensors) and all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    return tensors if whole else None


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    """Of the numbers and of how they are to be read, since a flipped bit in the header can change the shape."""
    digest = blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
