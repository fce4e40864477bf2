"""Any place of an endless order can be asked for, and every epoch has each item once."""

from __future__ import annotations

from collections import Counter

import pytest

from lora_trainer.data.endless_order import EndlessBatches, drawn_items, items_at


def test_epochs_are_permutations_of_their_own() -> None:
    row = items_at(0, 50, 10, 7)
    epochs = [row[at : at + 10] for at in range(0, 50, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(epochs)) == 5
    assert items_at(0, 50, 10, 8) != row


def test_any_place_is_known_without_those_before_it() -> None:
    row = items_at(0, 5000, 300, 3)
    assert items_at(4321, 64, 300, 3) == row[4321 : 4321 + 64]
    assert [items_at(place, 1, 300, 3)[0] for place in (299, 300, 4999)] == [row[299], row[300], row[4999]]
    assert items_at(3 * 10**12, 2, 300, 3) == items_at(3 * 10**12, 3, 300, 3)[:2]


def test_a_batch_may_be_longer_than_the_data_set() -> None:
    assert Counter(items_at(3, 9, 3, 0)) == {0: 3, 1: 3, 2: 3}
    assert items_at(5, 0, 3, 0) == ()
    with pytest.raises(ValueError, match="an order of no items"):
        items_at(0, 1, 0, 0)


def test_the_order_is_the_same_on_every_machine() -> None:
    assert items_at(0, 8, 8, 1) == (7, 0, 3, 5, 2, 4, 1, 6)
    assert drawn_items(range(8), 100, 1, 5, "G") == (94, 54, 98, 20, 54, 60, 3, 91)


def test_drawn_items_depend_on_their_position_alone() -> None:
    whole = drawn_items(range(16), 1000, 1, 5, "G")
    assert drawn_items((3, 9), 1000, 1, 5, "G") == (whole[3], whole[9])
    assert drawn_items(range(16), 1000, 1, 6, "G") != whole
    assert drawn_items(range(16), 1000, 1, 5, "D") != whole


def test_drawn_items_are_equally_likely() -> None:
    counts = Counter(drawn_items(range(8000), 8, 1, 0, "G"))
    assert sorted(counts) == list(range(8))
    assert max(abs(count - 1000) for count in counts.values()) < 120  # four times the standard deviation


def test_batches_of_one_size_follow_each_other() -> None:
    batches = EndlessBatches(10, 4, 7)
    assert batches.steps_per_epoch == 3
    row = items_at(0, 24, 10, 7)
    assert [batches.batch_of(step) for step in range(6)] == [row[at : at + 4] for at in range(0, 24, 4)]
