"""Timesteps: in bounds, evenly spread, and a function of the key."""

from __future__ import annotations

from collections import Counter

import pytest

from lora_trainer.losses.timesteps import uniform_timestep


def test_spread_over_the_whole_range() -> None:
    drawn = [uniform_timestep(0, 1000, 42, step, position) for step in range(500) for position in range(4)]
    tenths = Counter(timestep // 100 for timestep in drawn)
    assert set(tenths) == set(range(10))
    assert all(140 <= count <= 260 for count in tenths.values())
    assert drawn[:4] == [uniform_timestep(0, 1000, 42, 0, position) for position in range(4)]


def test_bounds_are_half_open() -> None:
    assert {uniform_timestep(100, 103, step) for step in range(100)} == {100, 101, 102}


def test_equal_bounds_mean_one_timestep() -> None:
    assert uniform_timestep(500, 500, 1) == 500
    assert uniform_timestep(1000, 1000, 1) == 999


@pytest.mark.parametrize(("minimum", "maximum"), [(-1, 10), (10, 5), (0, 1001)])
def test_impossible_bounds(minimum: int, maximum: int) -> None:
    with pytest.raises(ValueError, match=f"timesteps from {minimum} to {maximum} are not within 0 to 1000"):
        uniform_timestep(minimum, maximum, 1)
