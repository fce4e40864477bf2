"""Every random choice as a function of named numbers: the same key gives the same draw, in any order, on any machine.

A key is a few integers and words, for example ``(seed, step, sample, "noise")``. The words keep the streams apart, so
that a new kind of draw shifts none of the others.
"""

from __future__ import annotations

import random
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def draw_key(*parts: int | str) -> int:
    """A 64-bit number that depends on every part. Python's own hash would differ from process to process."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def uniform(*parts: int | str) -> float:
    """A number in [0, 1)."""
    return (draw_key(*parts) >> 11) / 2**53  # as many bits as a float holds: 1.0 itself cannot come out


def python_random(*parts: int | str) -> random.Random:
    """A generator for shuffles and choices."""
    return random.Random(draw_key(*parts))


def torch_generator(*parts: int | str) -> torch.Generator:
    """A CPU generator for tensors. PyTorch keeps 32 bits of the seed, hence the hash instead of packed fields."""
    import torch  # here, so that the data's order can be planned without loading torch

    return torch.Generator().manual_seed(draw_key(*parts) & 0x7FFF_FFFF_FFFF_FFFF)
