"""The latents of one picture as one file that proves itself: complete, unchanged, and of this very picture."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import torch

from lora_trainer.data.survey import Sample
from lora_trainer.data.tensor_file import read_tensors, write_tensors

FORMAT = 1  # raise it when the same key would mean other numbers
WRITERS = 4  # a disk that is told to keep a file makes its writer wait, and serves several at a time


def latent_path(folder: Path, sample: Sample, *settings: object) -> Path:
    """Where the latents of this picture, placed like this and encoded with these settings, belong."""
    key = [FORMAT, sample.digest, *vars(sample.placement).values(), *map(str, settings)]
    key += ["colours below transparency"] if sample.alpha_mask else []
    return folder / f"{blake2b(json.dumps(key).encode(), digest_size=20).hexdigest()}.safetensors"


def write_latents(path: Path, latents: torch.Tensor) -> None:
    """Write a tensor of any shape, atomically."""
    write_tensors(path, {"latents": latents})


@contextmanager
def writing_behind(most: int) -> Iterator[Callable[[Path, torch.Tensor], None]]:
    """Like ``write_latents``, but the files are written while the caller goes on; all are when the block has ended.

    The first to come for a path is written; ``most`` wait in memory. Raises OSError, at a later call or at the end.
    """
    waiting: deque[Future[None]] = deque()
    taken: set[Path] = set()
    with ThreadPoolExecutor(WRITERS) as pool:

        def write(path: Path, latents: torch.Tensor) -> None:
            if path in taken:  # the same picture lies in the data set twice
                return
            taken.add(path)
            while len(waiting) >= max(1, most):
                waiting.popleft().result()
            waiting.append(pool.submit(write_latents, path, latents))

        yield write
        while waiting:
            waiting.popleft().result()


def read_latents(path: Path) -> torch.Tensor | None:
    """The tensor, or None when the file is missing, damaged or holds a number that is not finite."""
    return (read_tensors(path) or {}).get("latents")
