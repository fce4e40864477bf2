"""Which file becomes of which picture, and what is refused before any is opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.data.picture_results import (
    Picture,
    format_of,
    planned_results,
    read_with_profile,
    texts_beside,
    write_result,
)
from lora_trainer.errors import Refusal

PROFILE = b"what the colours mean"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "bilder ä"
    (folder / "größe").mkdir(parents=True)
    for name in ("a.png", "größe/b c.jpg", "größe/b.d.webp"):
        Image.new("RGB", (8, 8), "teal").save(folder / name)
    (folder / "note.txt").write_text("no picture")
    return folder


def test_a_folder_keeps_its_structure_and_its_results_are_not_taken_for_pictures(pictures: Path) -> None:
    out = pictures / "restored"
    results, clashes = planned_results(pictures, out, "jpg")
    assert not clashes
    assert [each.name for each in results] == ["a.png", "größe/b c.jpg", "größe/b.d.webp"]
    targets = [each.target.relative_to(out).as_posix() for each in results]
    assert targets == ["a.jpg", "größe/b c.jpg", "größe/b.d.jpg"]
    write_result(results[0].target, Picture(np.zeros((4, 4, 3), np.uint8), None), "jpg")
    assert planned_results(pictures, out, "jpg")[0] == results
    assert planned_results(pictures, out, "")[0][1].target == out / "größe" / "b c.png"


def test_two_pictures_of_one_name_do_not_replace_each_other(pictures: Path) -> None:
    Image.new("RGB", (8, 8)).save(pictures / "a.webp")
    results, clashes = planned_results(pictures, pictures / "out", "")
    assert [each.name for each in results].count("a.png") == 1
    assert len(results) == 3
    assert clashes == [f"{pictures / 'a.webp'}: its result would be a.png, as that of a.png; rename one"]


def test_a_single_picture_goes_into_a_folder_or_a_file(pictures: Path, tmp_path: Path) -> None:
    for output, format, target in (
        ("out", "", "out/a.png"),
        ("out.v2", "webp", "out.v2/a.webp"),
        ("x.JPEG", "", "x.JPEG"),
        ("x.webp", "webp", "x.webp"),
    ):
        (result,), _ = planned_results(pictures / "a.png", tmp_path / output, format)
        assert result.target == tmp_path / target
        assert format_of(result) == (format or ("jpg" if "JPEG" in target else "png"))


@pytest.mark.parametrize(
    ("source", "output", "format", "text"),
    [
        ("nowhere", "out", "", "nowhere: there is no such picture or folder"),
        ("", "", "", "is the folder of the pictures itself; give another one"),
        ("", "note.txt", "", "note.txt is a file; give a folder for the results of a folder"),
        ("a.png", "", "png", "would be replaced by its own result; give another name or folder"),
        ("a.png", "x.tif", "", "x.tif: results are written as png, jpg, webp; give one of these endings"),
        ("a.png", "x.jpg", "png", "x.jpg: the name says jpg and --format says png; leave out one"),
        ("a.png", "note.txt", "", "note.txt is a file; give a folder, or a name that ends with .png"),
    ],
)
def test_wrong_places_are_refused(pictures: Path, source: str, output: str, format: str, text: str) -> None:
    with pytest.raises(Refusal) as refusal:
        planned_results(pictures / source, pictures / output, format)
    assert text in str(refusal.value)
    assert len(refusal.value.problems) == 1


def test_texts_are_found_beside_or_by_the_same_name_elsewhere(pictures: Path, tmp_path: Path) -> None:
    results, _ = planned_results(pictures, tmp_path / "out", "")
    (tmp_path / "texts" / "größe").mkdir(parents=True)
    (tmp_path / "texts" / "größe" / "b.d.txt").write_text("\ufeffa schön\n street\n", encoding="utf-8")
    (tmp_path / "texts" / "a.txt").write_text("", encoding="utf-8")
    (pictures / "größe" / "b c.txt").write_text("beside", encoding="utf-8")
    found = texts_beside(results, tmp_path / "texts", "else")
    assert found == {"a.png": "", "größe/b c.jpg": "else", "größe/b.d.webp": "a schön street"}
    assert texts_beside(results, None, "else")["größe/b c.jpg"] == "beside"
    with pytest.raises(Refusal) as refusal:
        texts_beside(results, None, None)
    assert refusal.value.problems[0] == (
        f"{pictures / 'a.png'}: there is no prompt for it, {pictures / 'a.txt'}; write one, or give --prompt for those"
    )
    assert len(refusal.value.problems) == 2
    (tmp_path / "texts" / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Refusal, match=r"the prompt cannot be read .*; save it as UTF-8"):
        texts_beside(results, tmp_path / "texts", "else")


def test_files_are_written_as_their_formats_say(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    sizes = {}
    for format, quality in (("png", None), ("webp", None), ("webp", 50), ("jpg", None), ("jpg", 50)):
        path = tmp_path / "new" / f"{quality}.{format}"
        write_result(path, Picture(noise, PROFILE), format, quality)
        with Image.open(path) as image:
            assert image.info["icc_profile"] == PROFILE
            assert np.array_equal(np.array(image), noise) == (format != "jpg" and quality is None)
            if format == "jpg":
                assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
        sizes[format, quality] = path.stat().st_size
    assert sizes["jpg", 50] < sizes["jpg", None]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "50.jpg", "50.webp", "None.jpg", "None.png", "None.webp",
    ]  # fmt: skip


def test_a_profile_stays_where_the_colours_do(tmp_path: Path) -> None:
    for mode, kept in (("RGB", PROFILE), ("RGBA", PROFILE), ("L", None)):
        Image.new(mode, (8, 4), "white").save(tmp_path / "x.png", icc_profile=PROFILE)
        found = read_with_profile(tmp_path / "x.png")
        assert found.profile == kept
        assert found.pixels.shape == (4, 8, 3)
