"""Which pictures a step trains on in an EveryDream2 data set: multiplied, batched by id and shape, filled, rated."""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from lora_trainer.data.buckets import Size
from lora_trainer.data.everydream.settings import ItemSettings

FILLED_EXPONENT = 1.5
Group = tuple[str, Size]  # batch_id, bucket


@dataclass(frozen=True)
class EpochBatch:
    """The items of one step. Of a batch that is filled with duplicates the first ``real`` ones are not; 0: all."""

    items: tuple[int, ...]
    real: int = 0

    @property
    def loss_scale(self) -> float:
        """A filled batch counts less: (real / size) ** 1.5."""
        return (self.real / len(self.items)) ** FILLED_EXPONENT if self.real else 1.0


@dataclass(frozen=True)
class Rated:
    """Epochs that come down from all pictures to ``target_percent`` of them, in a run of ``epochs``."""

    epochs: int
    target_percent: float

    def share(self, epoch: int) -> float:
        """Of the pictures, in the epoch counted from 0."""
        fallen = min(epoch, self.epochs) * (1 - self.target_percent / 100)
        return (self.epochs - fallen) / self.epochs


class EpochPlan:
    """The order of the data for ever, as a function of the seed: each epoch shuffles with the seed raised by one.

    A batch has one shape and one batch_id. What is left of a batch_id that fills no batch goes to the pictures without
    one; what is left of those is filled up with duplicates, and counts less. An epoch uses a picture as often as its
    ``multiply`` says: whole numbers always, and of the fractions of a shape as many as they add up to, at least one, so
    that epochs are equally long; only a rated data set has ever shorter ones, whose pictures are drawn by rating.
    """

    def __init__(
        self,
        bucket_of_item: Sequence[Size],
        settings: Sequence[ItemSettings],
        total_batch: int,
        seed: int,
        rated: Rated | None = None,
    ) -> None:
        if total_batch < 1:
            raise ValueError(f"a batch of {total_batch} pictures")
        self.total_batch = total_batch
        self.seed = seed
        self.bucket_of_item = tuple(bucket_of_item)
        self.settings = tuple(settings)
        self.rated = rated
        self._groups: dict[Group, list[int]] = {}
        for item, (bucket, each) in enumerate(zip(bucket_of_item, settings, strict=True)):
            if each.multiply > 0:
                self._groups.setdefault((each.batch_id, bucket), []).append(item)
        if not self._groups:
            raise ValueError("no pictures to make batches of")
        self._latest: tuple[int, list[EpochBatch]] = (-1, [])
        self.steps_per_epoch = len(self.epoch(0))
        self._starts = [0, self.steps_per_epoch]  # the first step of each epoch, for a rated data set

    def steps_before(self, epoch: int) -> int:
        """How many steps come before the epoch, counted from 0; of the epoch after the last, all of them."""
        if self.rated is None:
            return epoch * self.steps_per_epoch
        while len(self._starts) <= epoch:
            self._starts.append(self._starts[-1] + len(self._batches(len(self._starts) - 1)))
        return self._starts[epoch]

    def epoch_of(self, step: int) -> int:
        """Counted from 0, as steps are."""
        if self.rated is None:
            return step // self.steps_per_epoch
        while self._starts[-1] <= step:
            self.steps_before(len(self._starts))
        return bisect.bisect_right(self._starts, step) - 1

    def planned(self, step: int) -> EpochBatch:
        epoch = self.epoch_of(step)
        return self.epoch(epoch)[step - self.steps_before(epoch)]

    def batch_of(self, step: int) -> tuple[int, ...]:
        """The items of this step's whole batch. An item can be in it more than once."""
        return self.planned(step).items

    def epoch(self, epoch: int) -> list[EpochBatch]:
        """The batches of an epoch, counted from 0; the latest is kept."""
        if self._latest[0] != epoch:
            self._latest = (epoch, self._batches(epoch))
        return self._latest[1]

    def duplicates_in(self) -> dict[Size, float]:
        """Of each shape, the share of an epoch's uses that are duplicates: much of it says that a shape is rare."""
        uses: dict[Size, int] = {}
        filled: dict[Size, int] = {}
        for batch in self.epoch(0):
            bucket = self.bucket_of_item[batch.items[0]]
            uses[bucket] = uses.get(bucket, 0) + len(batch.items)
            filled[bucket] = filled.get(bucket, 0) + (len(batch.items) - batch.real if batch.real else 0)
        return {bucket: filled[bucket] / uses[bucket] for bucket in sorted(uses)}

    def _batches(self, epoch: int) -> list[EpochBatch]:
        draw = random.Random(self.seed + 1 + epoch)
        uses = [item for group in sorted(self._groups) for item in self._uses(self._groups[group], draw)]
        if self.rated is not None:
            uses = self._best(uses, self.rated.share(epoch), draw)
        draw.shuffle(uses)
        named, plain = self._by_group(uses)
        batches = []
        for (_, bucket), items in named.items():
            whole = len(items) // self.total_batch * self.total_batch
            batches += self._cut(items[:whole])
            plain.setdefault(bucket, []).extend(items[whole:])
        for items in plain.values():
            whole = len(items) // self.total_batch * self.total_batch
            batches += self._cut(items[:whole])
            if left := items[whole:]:
                more = [draw.choice(left) for _ in range(self.total_batch - len(left))]
                batches.append(EpochBatch((*left, *more), len(left)))
        draw.shuffle(batches)
        return batches

    def _by_group(self, uses: Sequence[int]) -> tuple[dict[Group, list[int]], dict[Size, list[int]]]:
        named: dict[Group, list[int]] = {}
        plain: dict[Size, list[int]] = {}
        for item in uses:
            name, bucket = self.settings[item].batch_id, self.bucket_of_item[item]
            (named.setdefault((name, bucket), []) if name else plain.setdefault(bucket, [])).append(item)
        return named, plain

    def _cut(self, items: Sequence[int]) -> list[EpochBatch]:
        size = self.total_batch
        return [EpochBatch(tuple(items[at : at + size])) for at in range(0, len(items), size)]

    def _uses(self, items: Sequence[int], draw: random.Random) -> list[int]:
        """The whole parts of multiply, and a fair choice among the fractions."""
        uses = [item for item in items for _ in range(math.floor(self.settings[item].multiply))]
        shares = [(item, self.settings[item].multiply % 1) for item in items if self.settings[item].multiply % 1]
        if not shares:
            return uses
        draw.shuffle(shares)
        total = sum(share for _, share in shares)
        count = max(1, math.floor(total + 0.5))
        ends = list(itertools.accumulate(share * count / total for _, share in shares))
        start = draw.random()  # systematic sampling: a mark at every whole distance from here takes what lies there
        marks = (bisect.bisect_right(ends, start + number) for number in range(count))
        return [*uses, *(shares[min(mark, len(shares) - 1)][0] for mark in marks)]

    def _best(self, uses: Sequence[int], share: float, draw: random.Random) -> list[int]:
        """So many of the uses, drawn by their rating, none twice."""
        count = max(1, math.floor(len(uses) * share + 0.5))
        keys = [draw.random() ** (1 / self.settings[item].rating) for item in uses]  # Efraimidis and Spirakis 2006
        best = sorted(range(len(uses)), key=lambda index: (-keys[index], index))[:count]
        return [uses[index] for index in sorted(best)]
