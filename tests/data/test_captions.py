"""Choosing, shuffling, keeping, warming up and dropping, each a function of its key."""

from __future__ import annotations

from collections import Counter

import pytest

from lora_trainer.data.captions import (
    CaptionSettings,
    Moment,
    choose_caption,
    constant_captions,
    tags_in_warmup,
    unvaried_captions,
)
from lora_trainer.errors import Refusal

CAPTION = "girl,  red hair,smile , park,, tree,"
KEYS = [(42, step, position) for step in range(50) for position in range(4)]
START = Moment()


def uses(caption: str, settings: CaptionSettings, moment: Moment = START) -> list[str]:
    """The caption's forms over two hundred uses."""
    return [choose_caption(caption, settings, moment, *key) for key in KEYS]


def test_untouched_without_a_reason_to_change_it() -> None:
    assert choose_caption(CAPTION, CaptionSettings(keep_tokens=2), START, 42, 0, 0) == CAPTION
    signs = "{a|b} ||| c;;;d (x:1.2) {{"
    assert choose_caption(signs, CaptionSettings(), START, 42, 0, 0) == signs


def test_shuffle_keeps_the_first_tags_and_loses_none() -> None:
    settings = CaptionSettings(shuffle_caption=True, keep_tokens=2)
    captions = uses(CAPTION, settings)
    assert all(caption.startswith("girl, red hair, ") for caption in captions)
    assert {tuple(sorted(caption.split(", "))) for caption in captions} == {
        ("girl", "park", "red hair", "smile", "tree")
    }
    assert len(set(captions)) == 6
    assert captions == uses(CAPTION, settings, Moment(7, 99, 100))


def test_keeping_more_tags_than_there_are() -> None:
    assert choose_caption("a, b", CaptionSettings(shuffle_caption=True, keep_tokens=5), START, 0) == "a, b"


def test_dropout_rate() -> None:
    settings = CaptionSettings(caption_dropout_rate=0.25, caption_prefix="x", caption_suffix="y")
    dropped = [caption == "" for caption in uses(CAPTION, settings)]
    assert 30 <= sum(dropped) <= 70
    assert dropped == [caption == "" for caption in uses(CAPTION, settings)]
    assert choose_caption(CAPTION, CaptionSettings(caption_dropout_rate=1.0), START, 0) == ""


def test_dropout_does_not_change_how_the_others_are_shuffled() -> None:
    plain = uses(CAPTION, CaptionSettings(shuffle_caption=True))
    some = uses(CAPTION, CaptionSettings(shuffle_caption=True, caption_dropout_rate=0.3))
    assert "" in some
    assert all(after in ("", before) for before, after in zip(plain, some, strict=True))


def test_every_nth_epoch_has_no_captions() -> None:
    settings = CaptionSettings(caption_dropout_every_n_epochs=3)
    found = [choose_caption("a", settings, Moment(epoch), 0) for epoch in range(1, 8)]
    assert found == ["a", "a", "", "a", "a", "", "a"]


def test_tag_dropout_spares_the_kept_tags_and_the_order() -> None:
    captions = uses("a, b, c, d, e", CaptionSettings(caption_tag_dropout_rate=0.4, keep_tokens=1))
    assert all(caption.split(", ")[0] == "a" for caption in captions)
    assert all(tags == sorted(tags) for tags in (caption.split(", ") for caption in captions))
    left = Counter(tag for caption in captions for tag in caption.split(", "))
    assert all(0.5 < left[tag] / len(captions) < 0.7 for tag in "bcde")
    assert len(set(captions)) == 2**4
    assert set(uses("a, b", CaptionSettings(caption_tag_dropout_rate=1))) == {""}


def test_separators_hold_front_and_end_still() -> None:
    settings = CaptionSettings(shuffle_caption=True, keep_tokens=1, keep_tokens_separator="|||")
    assert set(uses("aaa, bbb ||| ccc, ddd ||| ggg, hhh", settings)) == {
        "aaa, bbb, ccc, ddd, ggg, hhh",
        "aaa, bbb, ddd, ccc, ggg, hhh",
    }
    assert set(uses("aaa, bbb ||| ccc, ddd", settings)) == {"aaa, bbb, ccc, ddd", "aaa, bbb, ddd, ccc"}
    assert set(uses("a ||| b ||| c ||| d", settings)) == {"a, b, c, d"}
    assert set(uses("aaa, bbb, ccc", settings)) == {"aaa, bbb, ccc", "aaa, ccc, bbb"}  # keep_tokens, without the mark
    dropping = CaptionSettings(caption_tag_dropout_rate=1, keep_tokens_separator="|||")
    assert set(uses("aaa ||| bbb, ccc ||| ddd", dropping)) == {"aaa, ddd"}


def test_a_mark_that_keeps_nothing_does_not_reach_the_model() -> None:
    settings = CaptionSettings(keep_tokens_separator="|||")
    assert choose_caption("a,b ||| c", settings, START, 0) == "a, b, c"
    assert choose_caption("a,b , c", settings, START, 0) == "a,b , c"


def test_joined_tags_move_and_fall_as_one() -> None:
    sky = "vocaloid, sky;;;cloud;;;day, outdoors"
    shuffled = set(uses(sky, CaptionSettings(shuffle_caption=True, secondary_separator=";;;")))
    assert len(shuffled) == 6
    assert all("sky,cloud,day" in caption for caption in shuffled)
    dropped = set(uses(sky, CaptionSettings(caption_tag_dropout_rate=0.5, secondary_separator=";;;")))
    assert len(dropped) == 8
    assert all(("sky" in caption) == ("cloud" in caption) == ("day" in caption) for caption in dropped)
    assert choose_caption(sky, CaptionSettings(secondary_separator=";;;"), START, 0) == (
        "vocaloid, sky,cloud,day, outdoors"
    )


def test_another_caption_separator() -> None:
    settings = CaptionSettings(shuffle_caption=True, keep_tokens=1, caption_separator=".", secondary_separator=";")
    assert set(uses("A cat, red. It sits; still. Day.", settings)) == {
        "A cat, red. It sits. still. Day",
        "A cat, red. Day. It sits. still",
    }


def test_a_wildcard_is_drawn_anew_for_each_use() -> None:
    captions = uses("miku, {simple|white|} background, {a|b}", CaptionSettings(enable_wildcard=True))
    assert set(captions) == {
        f"miku, {kind} background, {letter}" for kind in ("simple", "white", "") for letter in "ab"
    }
    assert min(Counter(captions).values()) > 15
    assert captions == uses("miku, {simple|white|} background, {a|b}", CaptionSettings(enable_wildcard=True))


@pytest.mark.parametrize(
    ("caption", "read"),
    [
        ("{{retro style}}", "{retro style}"),
        ("{{a|b}}", "{a|b}"),
        ("{one}", "one"),
        ("{} }", "{} }"),
        ("{open", "{open"),
        ("a|b", "a|b"),
    ],
)
def test_braces_that_are_no_choice(caption: str, read: str) -> None:
    assert set(uses(caption, CaptionSettings(enable_wildcard=True))) == {read}


def test_one_of_several_lines_with_prefix_and_suffix_around_it() -> None:
    settings = CaptionSettings(enable_wildcard=True, caption_prefix="best,", caption_suffix=", {day|night}")
    captions = uses("1girl, stage\na girl on a stage", settings)
    lines = ("1girl, stage", "a girl on a stage")
    assert set(captions) == {f"best, {line} , {time}" for line in lines for time in ("day", "night")}


def test_prefix_and_suffix_take_part_in_the_shuffling() -> None:
    settings = CaptionSettings(
        shuffle_caption=True, keep_tokens_separator="|||", caption_prefix="x |||", caption_suffix=", z ||| end"
    )
    assert set(uses("a, b", settings)) == {
        f"x, {', '.join(tags)}, end"
        for tags in (
            ("a", "b", "z"),
            ("a", "z", "b"),
            ("b", "a", "z"),
            ("b", "z", "a"),
            ("z", "a", "b"),
            ("z", "b", "a"),
        )
    }


def test_tags_grow_from_the_least_to_all() -> None:
    settings = CaptionSettings(keep_tokens=1, token_warmup_min=2, token_warmup_step=8)
    found = [choose_caption("k, a, b, c, d, e, f", settings, Moment(1, step, 40), 0) for step in range(10)]
    assert [caption.count(",") for caption in found] == [2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert found[0] == "k, a, b"
    assert found[-1] == "k, a, b, c, d, e, f"
    shuffled = CaptionSettings(shuffle_caption=True, token_warmup_min=2, token_warmup_step=8)
    assert set(uses("a, b, c, d", shuffled)) == {"a, b", "b, a"}  # the first tags, in any order


def test_the_warmup_as_a_share_of_the_run() -> None:
    settings = CaptionSettings(token_warmup_min=0, token_warmup_step=0.25)
    assert [tags_in_warmup(10, settings, Moment(1, step, 40)) for step in (0, 1, 5, 9, 10, 39)] == [0, 1, 5, 9, 10, 10]
    assert [tags_in_warmup(2, CaptionSettings(token_warmup_min=5, token_warmup_step=9), Moment(1, 0, 40))] == [2]


def test_constant_captions_are_all_that_can_come() -> None:
    settings = CaptionSettings(caption_prefix="x", secondary_separator=";", keep_tokens_separator="|")
    assert constant_captions("a | b;c", settings) == ("x a, b,c",)
    dropped = CaptionSettings(caption_prefix="x", caption_dropout_rate=0.5)
    assert set(uses("a", dropped)) == set(constant_captions("a", dropped)) == {"x a", ""}
    every = CaptionSettings(caption_dropout_every_n_epochs=2)
    assert constant_captions("a", every) == ("a", "")
    for key, value in (
        ("shuffle_caption", True),
        ("caption_tag_dropout_rate", 0.1),
        ("token_warmup_step", 0.1),
        ("enable_wildcard", True),
    ):
        with pytest.raises(Refusal, match=f"turn {key} off, or the cache"):
            constant_captions("a", CaptionSettings(**{key: value}))  # type: ignore[arg-type]


def test_unvaried_captions_have_all_lines_and_all_tags() -> None:
    settings = CaptionSettings(True, 1, "|", caption_prefix="x,", enable_wildcard=True, caption_dropout_rate=1)
    assert unvaried_captions("a | b\nc", settings) == ("x, a, b", "x, c")
