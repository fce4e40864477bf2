"""Shuffling, keeping and dropping captions, each a function of its key."""

from __future__ import annotations

from pathlib import Path

from lora_trainer.data.buckets import Placement
from lora_trainer.data.captions import CaptionSettings, choose_caption, tag_frequency
from lora_trainer.data.survey import Sample

CAPTION = "girl,  red hair,smile , park,, tree,"
KEYS = [(42, step, position) for step in range(50) for position in range(4)]


def test_untouched_without_a_reason_to_change_it() -> None:
    assert choose_caption(CAPTION, CaptionSettings(keep_tokens=2), 1, 42, 0, 0) == CAPTION


def test_shuffle_keeps_the_first_tags_and_loses_none() -> None:
    settings = CaptionSettings(shuffle=True, keep_tokens=2)
    captions = [choose_caption(CAPTION, settings, 1, *key) for key in KEYS]
    assert all(caption.startswith("girl, red hair, ") for caption in captions)
    assert {tuple(sorted(caption.split(", "))) for caption in captions} == {
        ("girl", "park", "red hair", "smile", "tree")
    }
    assert len(set(captions)) == 6
    assert captions == [choose_caption(CAPTION, settings, 7, *key) for key in KEYS]


def test_keeping_more_tags_than_there_are() -> None:
    assert choose_caption("a, b", CaptionSettings(shuffle=True, keep_tokens=5), 1, 0) == "a, b"


def test_dropout_rate() -> None:
    settings = CaptionSettings(dropout_rate=0.25)
    dropped = [choose_caption(CAPTION, settings, 1, *key) == "" for key in KEYS]
    assert 30 <= sum(dropped) <= 70
    assert dropped == [choose_caption(CAPTION, settings, 1, *key) == "" for key in KEYS]
    assert choose_caption(CAPTION, CaptionSettings(dropout_rate=1.0), 1, 0) == ""


def test_dropout_does_not_change_how_the_others_are_shuffled() -> None:
    plain = [choose_caption(CAPTION, CaptionSettings(shuffle=True), 1, *key) for key in KEYS]
    some = [choose_caption(CAPTION, CaptionSettings(shuffle=True, dropout_rate=0.3), 1, *key) for key in KEYS]
    assert "" in some
    assert all(after in ("", before) for before, after in zip(plain, some, strict=True))


def test_every_nth_epoch_has_no_captions() -> None:
    settings = CaptionSettings(dropout_every_n_epochs=3)
    assert [choose_caption("a", settings, epoch, 0) for epoch in range(1, 8)] == ["a", "a", "", "a", "a", "", "a"]


def test_tag_frequency() -> None:
    def sample(folder: str, caption: str) -> Sample:
        return Sample("n", Path("n"), folder, 10, caption, (8, 8), "", Placement((8, 8), (8, 8), (0, 0)))

    samples = [sample("1_a", "Cat, tree,"), sample("1_a", "cat,cat"), sample("2_b", "dog, cat")]
    assert tag_frequency(samples) == {"1_a": {"cat": 3, "tree": 1}, "2_b": {"dog": 1, "cat": 1}}
