"""Pictures that are small."""

from __future__ import annotations

from lora_trainer.data.pairs import Pair
from lora_trainer.data.restoration_sizes import enlarged, too_small_to_measure


def pair(name: str, height: int, width: int) -> Pair:
    return Pair(name, f"GT/{name}.png", f"LQ/{name}.png", (height, width), 1, "")


def test_what_is_enlarged_is_told() -> None:
    large, low, narrow = pair("a", 64, 64), pair("b", 63, 900), pair("c", 900, 8)
    assert list(enlarged([large], 64)) == []
    blurs = "a side of less than 64 px and will be enlarged, which blurs what is learnt from"
    assert list(enlarged([large, low], 64)) == [f"1 picture has {blurs}: b"]
    assert list(enlarged([low, narrow, low, low], 64)) == [f"4 pictures have {blurs}: b, c, b and 1 more"]


def test_what_cannot_be_measured_is_named() -> None:
    found = list(too_small_to_measure([pair("a", 16, 16), pair("b", 15, 200)]))
    assert found == ["GT/b.png: 200 x 15 pixels, too small to be measured; both sides must have 16"]
