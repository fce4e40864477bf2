"""The order of the data: complete, without mixed buckets, and the same from wherever one starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.data.batches import BatchPlan, largest_batch_step, split

WIDE, TALL = (64, 128), (128, 64)
BUCKETS = [WIDE, TALL, WIDE, WIDE, TALL, WIDE]
REPEATS = [2, 1, 3, 1, 4, 1]


def test_steps_per_epoch_keeps_partial_batches() -> None:
    plan = BatchPlan(BUCKETS, REPEATS, 3, seed=42)  # 7 wide: 3 + 3 + 1; 5 tall: 3 + 2
    assert plan.steps_per_epoch == 5
    assert sorted(len(plan.batch_of(step)) for step in range(5)) == [1, 2, 3, 3, 3]
    assert [plan.epoch_of(step) for step in (0, 4, 5, 14)] == [0, 0, 1, 2]


def test_any_step_can_be_asked_for_first() -> None:
    forwards = BatchPlan(BUCKETS, REPEATS, 2, seed=42)
    backwards = BatchPlan(BUCKETS, REPEATS, 2, seed=42)
    batches = [forwards.batch_of(step) for step in range(30)]
    assert [backwards.batch_of(step) for step in reversed(range(30))] == batches[::-1]


def test_order_differs_by_epoch_and_by_seed() -> None:
    plan, other = (BatchPlan([WIDE] * 40, [1] * 40, 4, seed=seed) for seed in (1, 2))
    epochs = {tuple(plan.batch_of(step) for step in range(start, start + 10)) for start in range(0, 50, 10)}
    assert len(epochs) == 5
    assert plan.batch_of(0) != other.batch_of(0)


def test_order_is_the_same_in_another_process() -> None:
    code = (
        "from lora_trainer.data.batches import BatchPlan;"
        "print(BatchPlan([(64, 128)] * 9, [2] * 9, 4, seed=3).batch_of(7))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout.strip() == str(BatchPlan([(64, 128)] * 9, [2] * 9, 4, seed=3).batch_of(7))


@given(
    items=st.lists(st.tuples(st.sampled_from([WIDE, TALL, (64, 64)]), st.integers(1, 4)), min_size=1, max_size=20),
    total_batch=st.integers(1, 7),
    epoch=st.integers(0, 1000),
)
def test_an_epoch_is_complete_and_buckets_never_mix(
    items: list[tuple[tuple[int, int], int]], total_batch: int, epoch: int
) -> None:
    buckets, repeats = zip(*items, strict=True)
    plan = BatchPlan(buckets, repeats, total_batch, seed=1)
    first = epoch * plan.steps_per_epoch
    batches = [plan.batch_of(step) for step in range(first, first + plan.steps_per_epoch)]
    assert Counter(item for batch in batches for item in batch) == dict(enumerate(repeats))
    assert all(len({buckets[item] for item in batch}) == 1 for batch in batches)
    assert all(1 <= len(batch) <= total_batch for batch in batches)


@given(size=st.integers(1, 40), processes=st.integers(1, 5), passes=st.integers(1, 4))
def test_shares_are_near_equal_and_in_order(size: int, processes: int, passes: int) -> None:
    shares = split(range(100, 100 + size), processes * passes)
    assert [position for share in shares for position in share] == list(range(size))
    assert len(shares) == processes * passes
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_split_by_hand() -> None:
    assert split((7, 8, 9, 4, 5), 2) == [(0, 1), (2, 3, 4)]
    assert split((7, 8), 4) == [(), (0,), (), (1,)]


def test_largest_batch() -> None:
    big = (128, 192)
    plan = BatchPlan([WIDE] * 8 + [big] * 3, [1] * 11, 4, seed=0)  # 3 * 128 * 192 > 4 * 64 * 128
    assert sorted(plan.batch_of(largest_batch_step(plan))) == [8, 9, 10]
    plan = BatchPlan([WIDE] * 8 + [big], [1] * 9, 4, seed=0)  # 128 * 192 < 4 * 64 * 128
    assert len(plan.batch_of(largest_batch_step(plan))) == 4


def test_nothing_to_train_on() -> None:
    with pytest.raises(ValueError, match="no pictures to make batches of"):
        BatchPlan([], [], 2, seed=0)
    with pytest.raises(ValueError, match="a batch of 0 pictures"):
        BatchPlan([WIDE], [1], 0, seed=0)
