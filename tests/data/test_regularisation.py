"""How often regularisation pictures are used, against sd-scripts' rule worked out by hand."""

from __future__ import annotations

import pytest

from lora_trainer.data.regularisation import fill_up


@pytest.mark.parametrize(
    ("repeats", "wanted", "filled"),
    [
        ([1, 1, 1], 13, [5, 4, 4]),  # three pictures for thirteen uses, as a run of the reference had it
        ([1, 1, 1, 1], 2, [1, 1, 0, 0]),
        ([3, 3], 4, [3, 3]),  # a picture's own repeats are not cut
        ([2], 5, [5]),
        ([], 5, []),
        ([2, 2], 0, [0, 0]),
    ],
)
def test_uses_are_filled_up_in_turn(repeats: list[int], wanted: int, filled: list[int]) -> None:
    assert fill_up(repeats, wanted) == filled
