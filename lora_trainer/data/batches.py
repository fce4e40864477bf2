"""Which pictures a step trains on, as a pure function of the seed and the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lora_trainer.data.buckets import Size
from lora_trainer.draws import python_random

Group = tuple[int, ...]  # a bucket, after the number of its data set where that is not 0


class BatchPlan:
    """The order of the data for ever: every epoch draws each item as often as its repeats say, in a new order.

    A batch holds items of one bucket. What is left of a bucket at the end of an epoch makes a smaller batch, so that
    every epoch is ``steps_per_epoch`` batches. Any step's batch can be asked for directly; the latest epoch's order is
    kept, because steps are usually asked for one after the other.
    """

    def __init__(
        self,
        bucket_of_item: Sequence[Size],
        repeats: Sequence[int],
        total_batch: int | Sequence[int],
        seed: int,
        dataset_of_item: Sequence[int] = (),
    ) -> None:
        """Pictures of several data sets never share a batch; `total_batch` then has a number for each data set."""
        self.batch_sizes = (total_batch,) if isinstance(total_batch, int) else tuple(total_batch)
        if min(self.batch_sizes) < 1:
            raise ValueError(f"a batch of {min(self.batch_sizes)} pictures")
        self.seed = seed
        self.bucket_of_item = tuple(bucket_of_item)
        datasets = dataset_of_item or [0] * len(bucket_of_item)
        self._uses: dict[Group, list[int]] = {}
        for item, (bucket, count) in enumerate(zip(bucket_of_item, repeats, strict=True)):
            group = (datasets[item], *bucket) if datasets[item] else bucket
            self._uses.setdefault(group, []).extend([item] * count)
        self._uses = {group: self._uses[group] for group in sorted(self._uses)}
        self.steps_per_epoch = sum(-(-len(uses) // self._size(group)) for group, uses in self._uses.items())
        if self.steps_per_epoch == 0:
            raise ValueError("no pictures to make batches of")
        self._latest: tuple[int, list[tuple[int, ...]]] = (-1, [])

    @property
    def total_batch(self) -> int:
        """The largest."""
        return max(self.batch_sizes)

    def _size(self, group: Group) -> int:
        return self.batch_sizes[group[0] if len(group) > 2 else 0]

    def epoch_of(self, step: int) -> int:
        """Counted from 0, as steps are."""
        return step // self.steps_per_epoch

    def batch_of(self, step: int) -> tuple[int, ...]:
        """The items of this step's whole batch. An item with repeats can be in it more than once."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._latest[0] != epoch:
            self._latest = (epoch, self._epoch(epoch))
        return self._latest[1][place]

    def _epoch(self, epoch: int) -> list[tuple[int, ...]]:
        batches = []
        for bucket, uses in self._uses.items():
            order = list(uses)
            python_random(self.seed, epoch, "order", *bucket).shuffle(order)
            size = self._size(bucket)
            batches += [tuple(order[at : at + size]) for at in range(0, len(order), size)]
        python_random(self.seed, epoch, "batches").shuffle(batches)
        return batches


def split(batch: Sequence[int], slots: int) -> list[tuple[int, ...]]:
    """The batch's positions in ``slots`` contiguous shares whose sizes differ by at most one.

    A slot is one forward pass of one process. When the batch is smaller than the number of slots, some are empty.
    """
    edges = [len(batch) * slot // slots for slot in range(slots + 1)]
    return [tuple(range(edges[slot], edges[slot + 1])) for slot in range(slots)]


@dataclass(frozen=True)
class Share:
    """Which part of every batch this process takes, and how many pictures fit into one forward pass."""

    rank: int
    world: int
    per_device: int


def micro_positions(batch: Sequence[int], share: Share) -> list[tuple[int, ...]]:
    """The batch's positions in each of this process's forward passes; empty where others have its pictures."""
    passes = -(-len(batch) // (share.world * share.per_device))
    slots = split(batch, share.world * passes)
    return slots[share.rank * passes : (share.rank + 1) * passes]


class Batches(Protocol):
    """An order of pictures over the steps."""

    steps_per_epoch: int

    @property
    def bucket_of_item(self) -> Sequence[Size]: ...

    def batch_of(self, step: int) -> Sequence[int]: ...


def largest_batch_step(plan: Batches) -> int:
    """A step of the first epoch whose batch has the most pixels: what memory must suffice for."""

    def pixels(step: int) -> int:
        batch = plan.batch_of(step)
        height, width = plan.bucket_of_item[batch[0]]
        return len(batch) * height * width

    return max(range(plan.steps_per_epoch), key=pixels)
