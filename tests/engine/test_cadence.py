"""When something is due."""

from __future__ import annotations

from lora_trainer.engine.cadence import Cadence, Length


def test_epochs_of_one_length() -> None:
    length = Length(40, 10)
    assert [length.epoch(done) for done in (0, 1, 10, 11, 40)] == [1, 1, 1, 2, 4]
    assert [done for done in range(41) if length.ends_epoch(done)] == [10, 20, 30, 40]
    assert length.epochs == 4
    assert Cadence(2).moments(length) == [20]
    assert Cadence(0, 15).moments(length) == [15, 30]


def test_epochs_of_different_lengths() -> None:
    length = Length(40, 10, (10, 19, 27, 34, 40))
    assert [length.epoch(done) for done in (0, 1, 10, 11, 19, 20, 34, 35, 40)] == [1, 1, 1, 2, 2, 3, 4, 5, 5]
    assert [done for done in range(41) if length.ends_epoch(done)] == [10, 19, 27, 34, 40]
    assert length.epochs == 5
    assert Cadence(2).moments(length) == [19, 34]
