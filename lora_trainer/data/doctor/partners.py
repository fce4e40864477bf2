"""Find pairs whose two pictures do not show the same: files that were mixed up, or are wrongly named.

Edges are compared, not colours: haze, darkness, noise and snow change these, and the edges stay where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_trainer.data.doctor.duplicates import is_blank
from lora_trainer.data.doctor.fingerprints import Fingerprint

UNLIKE = 0.45  # correlation of the edges; snow leaves 0.64, and pictures that have nothing in common have 0.16
NOTHING_ALIKE = 0.2
FITTING = 0.6  # with another picture's original, which then is the right one


@dataclass(frozen=True)
class Stranger:
    """The partner with this number resembles its original so little. `rather` is the one that it fits, if any."""

    number: int
    likeness: float
    rather: int | None = None


def find_strangers(original_of: Sequence[int | None], prints: Sequence[Fingerprint | None]) -> tuple[Stranger, ...]:
    """`original_of` has for each partner the number of its original. The least alike come first."""
    shown = {number: each for number, each in enumerate(prints) if each is not None and not is_blank(each)}
    pairs = [(n, original) for n, original in enumerate(original_of) if n in shown and original in shown]
    if not pairs:
        return ()
    partners = _edges([shown[number] for number, _ in pairs])
    originals = _edges([shown[original] for _, original in pairs if original is not None])
    own = np.einsum("pe,pe->p", partners, originals)
    found = []
    for row in np.nonzero(own < UNLIKE)[0]:
        others = originals @ partners[row]
        best = int(others.argmax())
        number, likeness = pairs[row][0], float(own[row])
        if others[best] >= FITTING:
            found.append(Stranger(number, likeness, pairs[best][1]))
        elif likeness < NOTHING_ALIKE:
            found.append(Stranger(number, likeness))
    return tuple(sorted(found, key=lambda each: each.likeness))


def _edges(prints: Sequence[Fingerprint]) -> NDArray[np.float32]:
    """(p, e) the differences of neighbouring places, grey, of length 1."""
    grey = np.stack([each.pixels for each in prints]).astype(np.float32).mean(axis=3)
    across, down = np.diff(grey, axis=2), np.diff(grey, axis=1)
    rows = np.concatenate([across.reshape(len(grey), -1), down.reshape(len(grey), -1)], axis=1)
    lengths: NDArray[np.float32] = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return np.asarray(rows / lengths, np.float32)
