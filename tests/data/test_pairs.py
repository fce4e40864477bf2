"""Pictures and their partners: how they are matched, and that everything wrong is named at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_trainer.data.pairs import PairSettings, pairs_fingerprint, survey_pairs, validation_pairs
from lora_trainer.errors import Refusal

Draw = Callable[..., Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """`draw("hr/a.png", 40, 32)` writes a picture of that width and height."""

    def write(name: str, width: int, height: int, mode: str = "RGB") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(len(name)).integers(0, 256, (height, width, 4), np.uint8)
        if mode == "16":
            Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(path)
        elif mode == "L":
            Image.fromarray(noise[..., 0]).save(path)
        else:
            Image.fromarray(noise[..., : len(mode)]).save(path)
        return path

    return write


def settings(folder: Path, paired: bool = True, **changes: Any) -> PairSettings:
    facts: dict[str, Any] = {"dataroot_gt": [str(folder / "hr")], "scale": 4, "gt_px": 16, "enlarge": 1}
    return PairSettings(**{**facts, **({"dataroot_lq": [str(folder / "lr")]} if paired else {}), **changes})


def test_partners_have_the_same_path_without_ending(draw: Draw, tmp_path: Path) -> None:
    draw("hr/sub/ä.png", 40, 32), draw("lr/sub/ä.webp", 10, 8)
    draw("hr/0001.png", 48, 32), draw("lr/0001x4.png", 12, 8)
    found = survey_pairs(settings(tmp_path)).pairs
    assert [(pair.name, Path(pair.lq or "").name, pair.gt_px) for pair in found] == [
        ("0001", "0001x4.png", (32, 48)), ("sub/ä", "ä.webp", (32, 40)),
    ]  # fmt: skip


def test_a_template_names_the_partners(draw: Draw, tmp_path: Path) -> None:
    draw("hr/sub/a.png", 40, 32), draw("lr/sub/a_small.png", 10, 8)
    found = survey_pairs(settings(tmp_path, filename_tmpl="{}_small")).pairs
    assert Path(found[0].lq or "").name == "a_small.png"


def test_everything_wrong_is_named_at_once(draw: Draw, tmp_path: Path) -> None:
    draw("hr/alone.png", 40, 32)
    draw("lr/also alone.png", 10, 8)
    draw("hr/sizes.png", 40, 32), draw("lr/sizes.png", 10, 9)
    draw("hr/tiny.png", 12, 12), draw("lr/tiny.png", 3, 3)
    draw("hr/deep.png", 40, 32, "16"), draw("lr/deep.png", 10, 8)
    broken = draw("hr/broken.png", 40, 32)
    broken.write_bytes(broken.read_bytes()[:-100])
    draw("lr/broken.png", 10, 8)
    with pytest.raises(Refusal) as caught:
        survey_pairs(settings(tmp_path))
    found = "\n".join(caught.value.problems)
    for text in (
        "alone.png: has no partner in",
        "also alone.png: has no partner in",
        "sizes.png: 40 x 32 pixels, but with scale 4 its partner",
        "(10 x 9) wants 40 x 36",
        "tiny.png: 12 x 12 pixels are less than a crop of 16",
        "deep.png: 16 bits a channel; convert it to 8 bits",
        "broken.png: damaged",
    ):
        assert text in found, text
    assert len(caught.value.problems) == 6


def test_the_damaged_one_of_two_is_named(draw: Draw, tmp_path: Path) -> None:
    draw("hr/a.png", 40, 32)
    broken = draw("lr/a.png", 10, 8)
    broken.write_bytes(broken.read_bytes()[:60])
    draw("hr/b.png", 40, 32), draw("lr/b.png", 10, 8).write_bytes(b"")
    with pytest.raises(Refusal) as caught:
        survey_pairs(settings(tmp_path, cache_gib=1, cache_folder=str(tmp_path / "cache")))
    empty, damaged = caught.value.problems
    assert damaged.startswith(f"{broken}: damaged (")
    assert empty == f"{tmp_path / 'lr' / 'b.png'}: the file is empty"
    assert not list(tmp_path.glob("cache/*"))


def test_folders_that_do_not_fit_each_other(draw: Draw, tmp_path: Path) -> None:
    draw("hr/a.png", 40, 32), draw("lr/a.png", 10, 8)
    roots = [str(tmp_path / "hr"), str(tmp_path / "no")]
    with pytest.raises(Refusal, match="dataroot_lq: 1 folders for the 2 of dataroot_gt; give one for each"):
        survey_pairs(settings(tmp_path, dataroot_gt=roots))
    with pytest.raises(Refusal) as caught:
        survey_pairs(settings(tmp_path, dataroot_gt=roots, dataroot_lq=[str(tmp_path / "lr"), str(tmp_path / "nil")]))
    assert caught.value.problems == tuple(f"{tmp_path / name}: there is no such folder" for name in ("no", "nil"))
    two = survey_pairs(settings(tmp_path, dataroot_gt=roots[:1] * 2, dataroot_lq=[str(tmp_path / "lr")] * 2))
    assert [pair.name for pair in two.pairs] == ["a", "a"]


def test_hidden_files_and_the_order(draw: Draw, tmp_path: Path) -> None:
    for name in ("B", "a", "b/c", "b-c", "ä"):
        draw(f"hr/{name}.png", 40, 32)
    (tmp_path / "hr" / "._a.png").write_bytes(b"what a Mac leaves")
    draw("hr/.thumbnails/a.png", 4, 4)
    (tmp_path / "hr" / "notes.txt").write_text("no picture")
    found = survey_pairs(settings(tmp_path, paired=False)).pairs
    assert [pair.name for pair in found] == ["B", "a", "b-c", "b/c", "ä"]


def test_two_pictures_of_one_name(draw: Draw, tmp_path: Path) -> None:
    twins = draw("hr/a.jpg", 40, 32), draw("hr/a.png", 40, 32)
    with pytest.raises(Refusal) as caught:
        survey_pairs(settings(tmp_path, paired=False))
    assert caught.value.problems == (
        f"{twins[1]}: there is another picture of that name, {twins[0]}; rename one of them",
    )


def test_a_turned_photograph_has_the_size_that_a_person_sees(tmp_path: Path) -> None:
    (tmp_path / "hr").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (48, 32)).save(tmp_path / "hr" / "a.jpg", exif=exif)
    assert survey_pairs(settings(tmp_path, paired=False)).pairs[0].gt_px == (48, 32)


def test_only_so_many_are_named(draw: Draw, tmp_path: Path) -> None:
    for number in range(25):
        draw(f"hr/{number:02d}.png", 8, 8)
    with pytest.raises(Refusal) as caught:
        survey_pairs(settings(tmp_path, paired=False))
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1] == "... and 5 more"


def test_sixteen_bit_colour_that_pillow_would_read_unseen(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\x00" + bytes(16 * 6) for _ in range(16))
    head = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
    (tmp_path / "hr").mkdir()
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "hr" / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(Refusal, match="16 bits a channel"):
        survey_pairs(settings(tmp_path, paired=False))


def test_grey_and_transparent_pictures_are_noted(draw: Draw, tmp_path: Path) -> None:
    draw("hr/grey.png", 40, 32, "L"), draw("hr/clear.png", 40, 32, "RGBA"), draw("hr/plain.png", 40, 32)
    opaque = Image.open(draw("hr/opaque.png", 40, 32, "RGBA"))
    opaque.putalpha(255)
    opaque.save(tmp_path / "hr" / "opaque.png")
    assert survey_pairs(settings(tmp_path, paired=False)).notes == (
        "1 picture is grey and is trained on as RGB: grey",
        "1 picture is partly transparent and is laid on white: clear",
    )
    for number in range(4):
        draw(f"hr/grey{number}.png", 40, 32, "L")
    (grey, _) = survey_pairs(settings(tmp_path, paired=False)).notes
    assert grey == "5 pictures are grey and are trained on as RGB: grey, grey0, grey1 and 2 more"


def test_small_sets_are_drawn_more_often(draw: Draw, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        draw(f"hr/{name}.png", 40, 32)
    assert {pair.repeats for pair in survey_pairs(settings(tmp_path, paired=False, enlarge=0)).pairs} == {334}
    assert {pair.repeats for pair in survey_pairs(settings(tmp_path, paired=False, enlarge=2)).pairs} == {2}


def test_a_list_takes_some_pictures(draw: Draw, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        draw(f"hr/{name}.png", 40, 32), draw(f"lr/{name}.png", 10, 8)
    meta = tmp_path / "meta.txt"
    draw("hr/d (1).png", 40, 32), draw("lr/d (1).png", 10, 8)
    meta.write_text("a.png\nc.png (32,40,3) 1\n\nd (1).png (32,40,3) 1\n", encoding="utf-8")
    found = survey_pairs(settings(tmp_path, meta_info=[str(meta)])).pairs
    assert [pair.name for pair in found] == ["a", "c", "d (1)"]
    meta.write_text("a.png\nsub/gone.png (32,40,3) 1\n", encoding="utf-8")
    with pytest.raises(Refusal) as caught:
        survey_pairs(settings(tmp_path, meta_info=[str(meta), str(tmp_path / "no.txt")]))
    unread, gone = caught.value.problems
    assert unread.startswith(f"{tmp_path / 'no.txt'}: meta_info cannot be read (")
    assert gone == f"sub/gone.png: listed in meta_info, but not in {tmp_path / 'hr'}"


def test_the_fingerprint_is_of_the_content(draw: Draw, tmp_path: Path) -> None:
    draw("hr/a.png", 40, 32), draw("lr/a.png", 10, 8)
    before = pairs_fingerprint(survey_pairs(settings(tmp_path)).pairs)
    (tmp_path / "hr").rename(tmp_path / "else")
    moved = survey_pairs(settings(tmp_path, dataroot_gt=[str(tmp_path / "else")])).pairs
    assert pairs_fingerprint(moved) == before
    draw("lr/a.png", 10, 8, "L")
    assert pairs_fingerprint(survey_pairs(settings(tmp_path, dataroot_gt=[str(tmp_path / "else")])).pairs) != before


def test_held_out_pictures_are_cut_to_a_multiple(draw: Draw, tmp_path: Path) -> None:
    draw("hr/a.png", 43, 34)
    ((name, gt, lq),) = validation_pairs(survey_pairs(settings(tmp_path, paired=False)), 4)
    assert (name, gt.shape, lq) == ("a", (32, 40, 3), None)


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"dataroot_gt": ["nowhere"]}, "nowhere: there is no such folder"), ({}, "there are no pictures")],
)
def test_nothing_to_train_on(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    (tmp_path / "hr").mkdir()
    with pytest.raises(Refusal, match=text):
        survey_pairs(settings(tmp_path, paired=False, **changes))
