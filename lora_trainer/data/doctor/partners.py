"""Find pairs whose two pictures do not show the same: files that were mixed up, or are wrongly named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lora_trainer.data.doctor.duplicates import is_blank, standardised
from lora_trainer.data.doctor.fingerprints import Fingerprint

UNLIKE = 0.6  # correlation with the own original; strong haze or darkness may bring it there
NOTHING_ALIKE = 0.1
FITTING = 0.85  # with another picture's original, which then is the right one


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
    partners = standardised([shown[number] for number, _ in pairs])
    originals = standardised([shown[original] for _, original in pairs if original is not None])
    own = np.einsum("pc,pc->p", partners, originals)
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
