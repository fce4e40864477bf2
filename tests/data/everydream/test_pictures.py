"""A data set in folders or in a list: which pictures, which captions, whose settings count."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lora_trainer.data.buckets import BucketSettings
from lora_trainer.data.everydream.captions import Tag
from lora_trainer.data.everydream.pictures import Item, items_fingerprint, read_data_root
from lora_trainer.data.everydream.settings import ItemSettings
from lora_trainer.data.survey import survey
from lora_trainer.errors import Refusal

PHOTO = Path(__file__).parents[3] / "presets" / "photos" / "2_photo" / "coins.jpg"


def put(path: Path, text: str | None = None) -> Path:
    """A file with this text, or the photograph."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if text is None:
        shutil.copy(PHOTO, path)
    else:
        path.write_text(text, encoding="utf-8")
    return path


def by_name(root: Path) -> dict[str, Item]:
    return {item.name: item for item in read_data_root(root)}


def refused(root: Path) -> list[str]:
    with pytest.raises(Refusal) as caught:
        read_data_root(root)
    return list(caught.value.problems)


def test_pictures_of_all_folders_with_captions_from_wherever_they_are(tmp_path: Path) -> None:
    for name in ("a cat, red_12", "b", "c", "deep/er/d", "e"):
        put(tmp_path / f"{name}.jpg")
    put(tmp_path / ".hidden" / "h.jpg")
    put(tmp_path / "b.txt", "a dog, black\n")
    put(tmp_path / "c.caption", "a cow")
    put(tmp_path / "deep" / "er" / "d.yaml", "main_prompt: an owl\ntags:\n- night\n- {tag: 2023, weight: 0.5}\n")
    put(tmp_path / "e.yml", "rating: 2\nmultiply: 1.5\nmax_caption_length: 20\n")
    put(tmp_path / "e.txt", "an elk")
    items = by_name(tmp_path)
    assert {name: item.caption.text for name, item in items.items()} == {
        "a cat, red_12.jpg": "a cat, red",
        "b.jpg": "a dog, black",
        "c.jpg": "a cow",
        "deep/er/d.jpg": "an owl, night, 2023",
        "e.jpg": "an elk",
    }
    assert items["deep/er/d.jpg"].caption.tags == (Tag("night"), Tag("2023", 0.5))
    assert items["e.jpg"].settings == ItemSettings(multiply=1.5, rating=2.0)
    assert items["e.jpg"].caption.longest == 20


def test_settings_of_a_picture_its_folder_and_everything_below_a_folder(tmp_path: Path) -> None:
    for name in ("a.jpg", "in/b.jpg", "in/c.jpg", "in/deep/d.jpg"):
        put(tmp_path / name)
    put(tmp_path / "global.yaml", "tags: [everywhere]\nflip_p: 0.1\nloss_scale: 3\n")
    put(tmp_path / "in" / "multiply.txt", "2.5\n")
    put(tmp_path / "in" / "cond_dropout.txt", "0.2")
    put(tmp_path / "in" / "batch_id.txt", "faces")
    put(tmp_path / "in" / "shuffle_tags.txt", "")
    put(tmp_path / "in" / "loss_scale.txt", "0.5")
    put(tmp_path / "in" / "local.yaml", "tags: here\nflip_p: 0.5\n")
    put(tmp_path / "in" / "c.yaml", "flip_p: 0\nbatch_id: own\ntags: mine\nshuffle_tags: no\n")
    items = by_name(tmp_path)
    assert items["a.jpg"].settings == ItemSettings(flip_p=0.1, loss_scale=3)
    assert items["in/deep/d.jpg"].settings == ItemSettings(flip_p=0.1, loss_scale=3)
    assert items["in/b.jpg"].settings == ItemSettings(2.5, 0.2, 0.5, True, 0.5, "faces")
    assert items["in/c.jpg"].settings == ItemSettings(2.5, 0.2, 0.0, False, 0.5, "own")
    assert items["in/c.jpg"].caption.text == "c, mine, here, everywhere"
    assert items["in/deep/d.jpg"].caption.text == "d, everywhere"
    prints = items_fingerprint(list(items.values()))
    put(tmp_path / "in" / "multiply.txt", "2")
    changed = items_fingerprint(list(by_name(tmp_path).values()))
    assert [before == after for before, after in zip(prints, changed, strict=True)] == [True, False, False, True]


def test_a_list_of_pictures(tmp_path: Path) -> None:
    put(tmp_path / "x" / "a.jpg")
    put(tmp_path / "x" / "b.jpg")
    listed = [
        {"image": "x/b.jpg", "main_prompt": "bee", "tags": ["big", {"tag": "small", "weight": 2}], "multiply": 2},
        {"image": "x/a.jpg", "caption": "an ape, old"},
    ]
    file = put(tmp_path / "list.json", json.dumps(listed))
    items = by_name(file)
    assert [(name, item.caption.text) for name, item in items.items()] == [
        ("x/a.jpg", "an ape, old"),
        ("x/b.jpg", "bee, big, small"),
    ]
    assert items["x/b.jpg"].settings.multiply == 2
    put(file, json.dumps([*listed, {"image": "x/a.jpg"}, {"image": "no.jpg"}, {"file": 1}]))
    found = refused(file)
    assert found == [
        f"{file}: picture 4: {tmp_path / 'no.jpg'}: there is no such file",
        f'{file}: picture 5: write an object with an "image"',
        f"{file}: x/a.jpg is listed twice; write multiply 2 instead",
    ]


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    put(tmp_path / "b.jpg")
    put(tmp_path / "multiply.txt", "often")
    put(tmp_path / "local.yaml", "flip: 0.5\ncond_dropout: 2\n")
    put(tmp_path / "a.yaml", "tags: {a: 1\n")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    found = refused(tmp_path)
    assert found[0] == f"{tmp_path / 'multiply.txt'}: multiply: found 'often'; write a number from 0 upwards"
    assert found[1] == f"{tmp_path / 'local.yaml'}: flip: unknown key; did you mean flip_p?"
    assert found[2] == f"{tmp_path / 'local.yaml'}: cond_dropout: found 2; write a number from 0 to 1"
    assert found[3].startswith(f"{tmp_path / 'a.yaml'}:2:1: is not YAML")
    assert found[4].startswith(f"{tmp_path / 'b.txt'}: the caption is not UTF-8 (byte 0xe9 at position 3)")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("max_caption_length: .inf", "found inf; write a number of characters"),
        ("rating: 0", "found 0; write a number above 0"),
        ("multiply: .nan", "found nan; write a number from 0 upwards"),
        ("shuffle_tags: maybe", "found 'maybe'; write true or false"),
        ("tags: [{tag: a, wait: 1}]", "write a list of texts or of  tag: text  with a  weight: number"),
        ("flip_p: yes", "found True; write a number from 0 to 1"),
        ("batch_id: [a]", "found ['a']; write text"),
    ],
)
def test_a_setting_that_cannot_be_is_told(tmp_path: Path, line: str, problem: str) -> None:
    put(tmp_path / "a.jpg")
    put(tmp_path / "a.yaml", line)
    (found,) = refused(tmp_path)
    assert found.startswith(f"{tmp_path / 'a.yaml'}: {line.split(':')[0]}: ")
    assert problem in found


def test_a_data_root_without_pictures_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "no") == [f"data_root: {tmp_path / 'no'}: the folder of the pictures does not exist"]
    put(tmp_path / "a.txt", "")
    assert "holds no picture (png, jpg" in refused(tmp_path)[0]
    put(tmp_path / "a.jpg")
    assert "the caption file is empty" in refused(tmp_path)[0]
    put(tmp_path / "a.txt", "a")
    put(tmp_path / "multiply.txt", "0")
    assert "holds no picture" in refused(tmp_path)[0]
    assert "is a file; name a folder or a .json list" in refused(tmp_path / "a.txt")[0]


def test_items_can_be_surveyed(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.jpg")
    items = read_data_root(tmp_path)
    (sample,) = survey([item.picture for item in items], BucketSettings((128, 128), 64, 256, 64, upscale=True))
    assert (sample.name, sample.folder, sample.caption, sample.repeats) == ("in/a.jpg", "in", "a", 1)
