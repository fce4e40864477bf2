"""The order of a data set that is gone through for ever, in which any place can be asked for directly."""

from __future__ import annotations

import functools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from lora_trainer.draws import python_random, uniform


@dataclass(frozen=True)
class EndlessBatches:
    """Batches that are all of one size, one after the other from an endless order of as many items."""

    items: int
    size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """After so many steps every item was seen."""
        return -(-self.items // self.size)

    def batch_of(self, step: int) -> tuple[int, ...]:
        """The items of this step's whole batch."""
        return items_at(step * self.size, self.size, self.items, self.seed)


def items_at(first: int, count: int, size: int, seed: int) -> tuple[int, ...]:
    """The items at the places `first` to `first + count - 1` of an endless row of 0 to `size` - 1.

    Each epoch holds every item once, in an order of its own. Items of two epochs may stand in one batch, and then also
    the same one twice.
    """
    if size < 1:
        raise ValueError("an order of no items")
    found: list[int] = []
    while len(found) < count:
        epoch, place = divmod(first + len(found), size)
        found += _epoch(size, seed, epoch)[place : place + count - len(found)]
    return tuple(found)


def drawn_items(positions: Sequence[int], size: int, seed: int, step: int, purpose: str) -> tuple[int, ...]:
    """An item for each position in a step's batch, all equally likely and independent of each other.

    They lend their labels to generated pictures; `purpose` keeps the phases of a step apart.
    """
    return tuple(int(uniform(seed, step, position, "item", purpose) * size) for position in positions)


@functools.lru_cache(maxsize=4)  # steps are asked for one after the other, and a batch may reach into the next epoch
def _epoch(size: int, seed: int, epoch: int) -> array[int]:
    order = array("q", range(size))
    python_random(seed, epoch, "endless order").shuffle(order)
    return order
