"""Numbered folders: what is read, what is refused, and in whose words."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from lora_trainer.data.folders import read_folders, read_subsets
from lora_trainer.data.subsets import Subset
from lora_trainer.errors import Refusal


def touch(path: Path, content: bytes = b"not opened here") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def refusal(folder: Path, extension: str = ".txt") -> tuple[str, ...]:
    with pytest.raises(Refusal) as caught:
        read_folders(folder, extension)
    return caught.value.problems


def test_pictures_come_sorted_with_folder_repeats_and_caption(tmp_path: Path) -> None:
    data = tmp_path / "Bilder für Тест"
    touch(data / "2_style" / "z.webp")
    touch(data / "10_mychar girl" / "B.PNG")
    touch(data / "10_mychar girl" / "ä b.jpeg")
    touch(data / "10_mychar girl" / "ä b.txt", "1girl,  Straße\nsecond line\n".encode())
    touch(data / "10_mychar girl" / "notes.md")
    touch(data / "10_mychar girl" / "._B.PNG")
    touch(data / "10_mychar girl" / "below" / "c.png")

    pictures = read_folders(data, ".txt")

    assert [(p.name, p.folder, p.repeats, p.caption) for p in pictures] == [
        ("10_mychar girl/B.PNG", "10_mychar girl", 10, "mychar girl"),
        ("10_mychar girl/ä b.jpeg", "10_mychar girl", 10, "1girl,  Straße"),
        ("2_style/z.webp", "2_style", 2, "style"),
    ]
    assert pictures[1].path == data / "10_mychar girl" / "ä b.jpeg"


def test_folder_names_without_a_count_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder in ("1_a", "0_off", "-3_off", "notes_b", "x", ".cache"):
        touch(tmp_path / folder / "p.png")
    touch(tmp_path / "3_empty" / "readme.txt")
    touch(tmp_path / "loose.jpg")
    with caplog.at_level(logging.WARNING):
        pictures = read_folders(tmp_path, ".txt")
    assert [picture.name for picture in pictures] == ["1_a/p.png"]
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == [
        f"{tmp_path / 'notes_b'}: ignored, because its name does not start with a number and an underscore",
        f"{tmp_path / 'x'}: ignored, because its name does not start with a number and an underscore",
        f"{tmp_path}: 1 pictures lie outside the numbered folders and are not used",
        f"{tmp_path / '3_empty'}: no pictures in this folder",
    ]


def test_underscores_of_the_class_words_stay(tmp_path: Path) -> None:
    touch(tmp_path / "4_my_char_x" / "p.bmp")
    touch(tmp_path / "5" / "p.bmp")
    assert [(p.repeats, p.caption) for p in read_folders(tmp_path, ".txt")] == [(4, "my_char_x"), (5, "")]


@pytest.mark.parametrize(
    ("extension", "caption"),
    [(".txt", "from txt"), ("txt", "from txt"), (".caption", "from caption"), (".none-use-foldername", "a")],
)
def test_caption_extension(tmp_path: Path, extension: str, caption: str) -> None:
    touch(tmp_path / "1_a" / "v1.2 final.png")
    touch(tmp_path / "1_a" / "v1.2 final.txt", b"\xef\xbb\xbf  from txt \r\nmore")
    touch(tmp_path / "1_a" / "v1.2 final.caption", b"from caption")
    assert read_folders(tmp_path, extension)[0].caption == caption


def test_two_pictures_may_share_a_caption_file(tmp_path: Path) -> None:
    touch(tmp_path / "1_a" / "p.jpg")
    touch(tmp_path / "1_a" / "p.png")
    touch(tmp_path / "1_a" / "p.txt", b"shared")
    assert [p.caption for p in read_folders(tmp_path, ".txt")] == ["shared", "shared"]


def test_every_bad_caption_file_is_named_at_once_and_only_once(tmp_path: Path) -> None:
    folder = tmp_path / "1_a"
    for name in ("empty.jpg", "empty.png", "latin.png", "second.png", "utf16.png", "good.png"):
        touch(folder / name)
    empty, latin = touch(folder / "empty.txt", b""), touch(folder / "latin.txt", "una niña".encode("latin-1"))
    second, utf16 = touch(folder / "second.txt", b" \nwords"), touch(folder / "utf16.txt", "cat".encode("utf-16"))
    advice = "write the caption on line 1, or delete the file to use the folder's name"
    assert refusal(tmp_path) == (
        f"{empty}: the caption file is empty; {advice}",
        f"{latin}: the caption is not UTF-8 (byte 0xf1 at position 6); save the file as UTF-8",
        f"{second}: the first line of the caption is empty; {advice}",
        f"{utf16}: the caption is not UTF-8 (byte 0xff at position 0); save the file as UTF-8",
    )


def test_wrong_places_are_told_apart(tmp_path: Path) -> None:
    missing, empty, flat = tmp_path / "missing", tmp_path / "empty", tmp_path / "flat"
    assert refusal(missing) == (f"{missing}: the folder of the training pictures does not exist; check train_data_dir",)
    file = touch(tmp_path / "file.json")
    assert refusal(file) == (f"{file}: the folder of the training pictures is a file; check train_data_dir",)
    empty.mkdir()
    assert refusal(empty) == (f"{empty}: the folder is empty; put the pictures in a subfolder like 10_name",)
    touch(flat / "p.png")
    assert "pictures must lie in a subfolder like 10_name" in refusal(flat)[0]
    leaf = tmp_path / "set" / "10_name"
    touch(leaf / "p.png")
    assert refusal(leaf) == (
        f"{leaf}: this is a numbered folder itself; set train_data_dir to its parent, {leaf.parent}",
    )
    touch(tmp_path / "other" / "pictures" / "p.png")
    assert "no subfolder named like 10_name" in refusal(tmp_path / "other")[0]
    (tmp_path / "bare" / "1_a").mkdir(parents=True)
    assert "none of its 1 numbered folders holds a picture (png, jpg" in refusal(tmp_path / "bare")[0]


def test_all_lines_of_a_caption_file_when_asked_for(tmp_path: Path) -> None:
    touch(tmp_path / "1_a" / "p.png")
    touch(tmp_path / "1_a" / "p.txt", b"\xef\xbb\xbf\r\n one, two \r\n\r\nthree\n")
    assert [p.caption for p in read_folders(tmp_path, ".txt", all_lines=True)] == ["one, two\nthree"]
    touch(tmp_path / "1_a" / "p.txt", b" \n\n")
    with pytest.raises(Refusal, match="the caption file is empty"):
        read_folders(tmp_path, ".txt", all_lines=True)


def test_a_mask_has_the_name_of_its_picture_and_perhaps_of_its_folder(tmp_path: Path) -> None:
    subsets = []
    for folder in ("1_a", "2_b"):
        touch(tmp_path / folder / "p.jpg")
        subsets.append(Subset(tmp_path / folder, folder, conditioning_data_dir=tmp_path / "masks"))
    common, own = touch(tmp_path / "masks" / "p.png"), touch(tmp_path / "masks" / "2_b" / "p.webp")
    assert [p.mask for p in read_subsets(subsets, tmp_path)] == [common, own]
    own.rename(own.with_stem("q"))
    common.unlink()
    with pytest.raises(Refusal) as caught:
        read_subsets(subsets, tmp_path)
    advice = "there is no mask for p.jpg; a mask has the name of its picture"
    assert caught.value.problems == (f"{common.parent}: {advice}", f"{own.parent}: {advice}")
