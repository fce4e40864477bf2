"""A picture's own settings come before the preset's."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_trainer.data.everydream.captions import parse_caption
from lora_trainer.data.everydream.pictures import Item
from lora_trainer.data.everydream.settings import ItemSettings
from lora_trainer.data.everydream.usage import Usage

CAPTION = parse_caption("m, a, b, c, d")


def item(**settings: object) -> Item:
    return Item(Path("x.jpg"), "x.jpg", CAPTION, ItemSettings(**settings))  # type: ignore[arg-type]


def test_tags_move_from_epoch_to_epoch_where_they_are_to() -> None:
    usage = Usage(555, shuffle_tags=True)
    assert [usage.caption(item(), epoch, 1) for epoch in range(3)] == [
        "m, c, a, d, b", "m, c, b, a, d", "m, b, d, c, a",
    ]  # fmt: skip
    assert usage.caption(item(shuffle_tags=False), 0, 1) == "m, a, b, c, d"
    assert Usage(555).caption(item(), 0, 1) == "m, a, b, c, d"
    assert Usage(555).caption(item(shuffle_tags=True), 0, 1) == "m, c, a, d, b"
    kept = Usage(555, shuffle_tags=True, keep_tags=3)
    assert kept.caption(item(), 0, 1) == "m, a, b, c, d"


def test_captions_are_dropped_to_a_blank() -> None:
    usage = Usage(555, cond_dropout=0.5)
    found = [usage.caption(item(), 0, 555, step, 0) for step in range(1000)]
    assert set(found) == {" ", "m, a, b, c, d"}
    assert found.count(" ") / 1000 == pytest.approx(0.5, abs=0.06)
    assert usage.caption(item(cond_dropout=0.0), 0, 1) == "m, a, b, c, d"
    assert Usage(555).caption(item(cond_dropout=1.0), 0, 1) == " "


def test_pictures_are_mirrored_by_their_own_probability() -> None:
    usage = Usage(555, flip_p=0.5)
    share = sum(usage.mirrored(item(), 1, step) for step in range(2000)) / 2000
    assert share == pytest.approx(0.5, abs=0.04)
    assert not usage.mirrored(item(flip_p=0.0), 1)
    assert Usage(555).mirrored(item(flip_p=1.0), 1)
    assert [usage.may_mirror(item()), usage.may_mirror(item(flip_p=0.0)), Usage(1).may_mirror(item())] == [
        True, False, False,
    ]  # fmt: skip


def test_all_forms_of_a_caption_are_known_beforehand() -> None:
    usage = Usage(555, cond_dropout=0.1, shuffle_tags=True)
    forms = usage.forms(item(), 3)
    assert forms == ("m, c, a, d, b", "m, c, b, a, d", "m, b, d, c, a", " ")
    assert Usage(555).forms(item(), 9) == ("m, a, b, c, d",)
