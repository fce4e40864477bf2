"""Batches of an epoch: one shape each, filled with duplicates, multiplied, grouped, rated; the schedule's file."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from pathlib import Path

import pytest

from lora_trainer.data.batches import largest_batch_step
from lora_trainer.data.everydream.epochs import EpochBatch, EpochPlan, Rated
from lora_trainer.data.everydream.schedule_file import schedule_name, schedule_text
from lora_trainer.data.everydream.settings import ItemSettings

SQUARE, WIDE = (512, 512), (448, 576)
PLAIN = ItemSettings()


def plan(squares: int = 5, wides: int = 3, batch: int = 2, seed: int = 555) -> EpochPlan:
    buckets = [SQUARE] * squares + [WIDE] * wides
    return EpochPlan(buckets, [PLAIN] * len(buckets), batch, seed)


def uses(batches: list[EpochBatch]) -> Counter[int]:
    return Counter(item for batch in batches for item in batch.items)


def test_every_picture_comes_once_and_each_batch_is_whole_and_of_one_shape() -> None:
    made = plan(squares=5, wides=3, batch=2)
    assert made.steps_per_epoch == 5
    batches = made.epoch(0)
    assert all(len(batch.items) == 2 for batch in batches)
    assert all(len({made.bucket_of_item[item] for item in batch.items}) == 1 for batch in batches)
    real = Counter(item for batch in batches for item in batch.items[: batch.real or 2])
    assert real == Counter(range(8))
    filled = [batch for batch in batches if batch.real]
    assert [batch.real for batch in filled] == [1, 1]
    assert all(batch.items[0] == batch.items[1] for batch in filled)


def test_a_filled_batch_counts_less() -> None:
    (batch,) = plan(squares=3, wides=0, batch=4).epoch(0)
    assert batch.real == 3
    assert batch.loss_scale == pytest.approx((3 / 4) ** 1.5)
    assert set(batch.items[3:]) <= set(batch.items[:3])
    assert EpochBatch((1, 2)).loss_scale == 1.0


def test_any_step_can_be_asked_for_alone_and_after_a_copy() -> None:
    made = plan()
    whole = [made.batch_of(step) for step in range(15)]
    assert plan().batch_of(13) == whole[13]
    assert pickle.loads(pickle.dumps(made)).batch_of(7) == whole[7]
    assert whole[0:5] != whole[5:10]
    assert [made.epoch_of(step) for step in (0, 4, 5, 14)] == [0, 0, 1, 2]
    assert plan(seed=556).epoch(0) == plan(seed=555).epoch(1)
    assert largest_batch_step(made) in range(5)  # type: ignore[arg-type]


def test_the_first_epoch_shuffles_with_the_seed_raised_by_one() -> None:
    made = plan(squares=6, wides=0, batch=6, seed=555)
    order = list(range(6))
    random.Random(556).shuffle(order)
    assert made.batch_of(0) == tuple(order)


def test_multiply_copies_and_takes_fractions_by_a_fair_choice() -> None:
    settings = [ItemSettings(2.0), *[ItemSettings(0.25)] * 8, ItemSettings(1.5), ItemSettings(0.0)]
    made = EpochPlan([SQUARE] * 11, settings, 1, 7)
    assert made.steps_per_epoch == 2 + 1 + 3  # 8 * 0.25 + 0.5, rounded
    total: Counter[int] = Counter()
    for epoch in range(400):
        batches = made.epoch(epoch)
        assert len(batches) == made.steps_per_epoch
        seen = uses(batches)
        assert seen[0] == 2
        assert seen[9] in (1, 2)
        assert seen[10] == 0
        total += seen
    rates = [total[item] / 400 for item in range(1, 9)]
    assert all(rate == pytest.approx(0.25 * 3 / 2.5, abs=0.08) for rate in rates)


def test_a_rare_fraction_is_not_forgotten() -> None:
    made = EpochPlan([SQUARE, WIDE], [PLAIN, ItemSettings(0.05)], 1, 7)
    assert uses(made.epoch(0)) == {0: 1, 1: 1}


def test_pictures_of_a_batch_id_stay_together_and_its_rest_joins_the_others() -> None:
    settings = [ItemSettings(batch_id="faces")] * 5 + [PLAIN] * 4
    made = EpochPlan([SQUARE] * 9, settings, 2, 3)
    for epoch in range(20):
        kinds = Counter(len([item for item in batch.items if item < 5]) for batch in made.epoch(epoch))
        assert kinds[2] >= 2
        assert uses(made.epoch(epoch)).keys() == set(range(9))
        assert made.steps_per_epoch == len(made.epoch(epoch)) == 5
        assert sum(batch.real for batch in made.epoch(epoch)) == 1


def test_a_rated_data_set_comes_down_to_its_best_pictures() -> None:
    settings = [ItemSettings(rating=1.0)] * 50 + [ItemSettings(rating=9.0)] * 50
    made = EpochPlan([SQUARE] * 100, settings, 10, 1, Rated(epochs=5, target_percent=50))
    lengths = [len(made.epoch(epoch)) for epoch in range(5)]
    assert lengths == [10, 9, 8, 7, 6]
    assert [made.steps_before(epoch) for epoch in range(6)] == [0, 10, 19, 27, 34, 40]
    assert [made.epoch_of(step) for step in (0, 9, 10, 18, 19, 39)] == [0, 0, 1, 1, 2, 4]
    assert made.batch_of(39) == made.epoch(4)[5].items
    last = uses(made.epoch(4))
    assert max(last.values()) == 1
    assert sum(item >= 50 for item in last) > 40
    again = EpochPlan([SQUARE] * 100, settings, 10, 1, Rated(epochs=5, target_percent=50))
    assert again.batch_of(39) == made.batch_of(39)


def test_the_share_of_duplicates_is_known() -> None:
    made = plan(squares=4, wides=1, batch=4)
    assert made.duplicates_in() == {WIDE: 0.75, SQUARE: 0.0}


def test_the_schedule_tells_every_use_of_every_picture() -> None:
    batches = [EpochBatch((2, 0)), EpochBatch((1, 1), real=1)]
    paths = [Path("a.jpg"), Path("b.jpg"), Path("c.jpg")]
    assert schedule_text(batches, paths, [SQUARE, WIDE, SQUARE]) == (
        "step:00000, wh:[512, 512], r:0, path:c.jpg\n"
        "step:00000, wh:[512, 512], r:0, path:a.jpg\n"
        "step:00001, wh:[576, 448], r:1, path:b.jpg\n"
        "step:00001, wh:[576, 448], r:1, path:b.jpg\n"
    )
    assert schedule_name(9) == "ep9_batch_schedule.txt"


def test_no_pictures_make_no_batches() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        EpochPlan([SQUARE], [ItemSettings(0.0)], 1, 1)
