"""How often regularisation pictures are used: together as often as the pictures that are trained."""

from __future__ import annotations

from collections.abc import Sequence


def fill_up(repeats: Sequence[int], wanted: int) -> list[int]:
    """The repeats of regularisation pictures that make up the wanted number of uses.

    As sd-scripts does it: one picture after the other with its own repeats until there are enough, and if all of them
    are too few, once more each, again and again. What is not needed is 0.
    """
    filled = [0] * len(repeats)
    uses = 0
    for index, count in enumerate(repeats):
        if uses >= wanted:
            return filled
        filled[index] = count
        uses += count
    while uses < wanted and repeats:
        for index in range(len(filled)):
            if uses >= wanted:
                break
            filled[index] += 1
            uses += 1
    return filled
