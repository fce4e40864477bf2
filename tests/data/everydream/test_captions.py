"""Captions of a main prompt and tags."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from lora_trainer.data.everydream.captions import Caption, Tag, compose, dropped, parse_caption

PARTS = "a cat, red fur, on a mat, at night, oil painting, detailed"


def test_a_text_is_cut_at_its_commas() -> None:
    caption = parse_caption(" a cat ,red\n fur,, on a mat,")
    assert (caption.main_prompt, caption.tags) == ("a cat", (Tag("red fur"), Tag("on a mat")))
    assert caption.text == "a cat, red fur, on a mat"
    assert parse_caption("a cat").tags == ()


@pytest.mark.parametrize("seed", [555, 556, 12345])
def test_tags_are_shuffled_by_the_epochs_seed_alone_and_the_first_part_stays(seed: int) -> None:
    first, *rest = PARTS.split(", ")
    random.Random(seed).shuffle(rest)
    assert compose(parse_caption(PARTS), seed, shuffle=True, name="x") == ", ".join([first, *rest])
    other = compose(parse_caption("b, 1, 2, 3, 4, 5"), seed, shuffle=True, name="y").split(", ")[1:]
    assert [PARTS.split(", ")[int(number)] for number in other] == rest


def test_the_known_order_of_the_first_epochs() -> None:
    orders = [compose(parse_caption("m, a, b, c, d"), 555 + epoch, shuffle=True) for epoch in range(3)]
    assert orders == ["m, c, a, d, b", "m, c, b, a, d", "m, b, d, c, a"]


def test_kept_tags_stay_after_the_first_part() -> None:
    for seed in range(20):
        parts = compose(parse_caption(PARTS), seed, shuffle=True, keep_tags=2).split(", ")
        assert parts[:3] == PARTS.split(", ")[:3]
        assert sorted(parts) == sorted(PARTS.split(", "))
    assert compose(parse_caption(PARTS), 5, shuffle=True, keep_tags=9) == PARTS
    assert compose(parse_caption(PARTS), 5, shuffle=False) == PARTS


def test_heavy_tags_come_first_rather_than_light_ones() -> None:
    caption = Caption("m", (Tag("light", 0.1), Tag("heavy", 2.0), Tag("never", 0.0)))
    first = Counter(compose(caption, seed, shuffle=False).split(", ")[1] for seed in range(400))
    assert set(first) == {"light", "heavy"}
    assert first["heavy"] / 400 == pytest.approx(2 / 2.1, abs=0.04)
    assert compose(caption, 1, shuffle=False, name="a") == compose(caption, 1, shuffle=True, name="a")


def test_tags_that_make_a_caption_too_long_are_left_out() -> None:
    caption = Caption("m", (Tag("aaaa"), Tag("bbbb"), Tag("c")), longest=10)
    assert compose(caption, 1, shuffle=False) == "m, aaaa"
    assert len(compose(Caption("m", caption.tags, 13), 1, shuffle=False)) == 13
    assert compose(Caption("much too long", caption.tags, 5), 1, shuffle=False) == "much too long"


def test_dropping_follows_its_probability() -> None:
    share = sum(dropped(0.25, 1, step, 0) for step in range(4000)) / 4000
    assert share == pytest.approx(0.25, abs=0.02)
    assert not any(dropped(0.0, 1, step) for step in range(100))
    assert all(dropped(1.0, 1, step) for step in range(100))
