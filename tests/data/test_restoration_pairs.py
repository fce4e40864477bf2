"""Pictures of a restoration: folders by type, lists, originals alone; everything wrong is named at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.data.pair_list import write_pair_list
from lora_trainer.data.restoration_pairs import RestorationSources, prompt_of_name, survey_restoration
from lora_trainer.errors import Refusal

Draw = Callable[..., Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """`draw("Rain/LQ/a.png", 40, 32)` writes a picture of that width and height."""

    def write(name: str, width: int = 20, height: int = 16) -> Path:
        path = tmp_path / "bilder ä" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (height, width, 3), np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def root(tmp_path: Path, draw: Draw) -> Path:
    """Two pairs of Rain, of which one goes by its stem, and one of Blur in small letters."""
    for name in (
        "Rain/LQ/b.png",
        "Rain/GT/b.png",
        "Rain/LQ/a.jpg",
        "Rain/GT/a.png",
        "Blur/lq/x_y.png",
        "Blur/gt/x_y.png",
    ):
        draw(name)
    return tmp_path / "bilder ä"


def sources(root: Path, **changes: object) -> RestorationSources:
    return replace(RestorationSources(folders=[str(root)], prompt="sharp"), **changes)  # type: ignore[arg-type]


def test_folders_by_type(root: Path) -> None:
    found = survey_restoration(sources(root))
    assert [(pair.name, Path(pair.lq or "").name, Path(pair.gt).name, pair.gt_px) for pair in found.pairs] == [
        ("Blur/x_y", "x_y.png", "x_y.png", (16, 20)),
        ("Rain/a", "a.jpg", "a.png", (16, 20)),
        ("Rain/b", "b.png", "b.png", (16, 20)),
    ]
    assert (found.kinds, found.prompts) == (("Blur", "Rain", "Rain"), ("sharp",) * 3)
    assert found.paired
    assert found.first_of_each_kind(1) == [0, 1]
    assert found.first_of_each_kind(0) == [0, 1, 2]


def test_some_types_only_in_the_order_given(root: Path) -> None:
    assert survey_restoration(sources(root, kinds=["Rain", "Blur"])).kinds == ("Rain", "Rain", "Blur")
    with pytest.raises(Refusal) as caught:
        survey_restoration(sources(root, kinds=["Rian", "Blur"]))
    assert caught.value.problems == (
        f"{root / 'Rian'}: there is no such folder; there is Blur, Rain; did you mean Rain?",
    )


def test_one_pair_of_folders_has_no_type(root: Path) -> None:
    found = survey_restoration(sources(root / "Rain"))
    assert [pair.name for pair in found.pairs] == ["a", "b"]
    assert found.kinds == ("", "")


def test_a_list_has_its_prompts_and_the_others_the_common_one(root: Path, draw: Draw) -> None:
    path = root / "list.csv"
    rows = [
        ("Rain/LQ/b.png", "Rain/GT/b.png", "a dog", "Wet"),
        (str(root / "Rain/LQ/a.jpg"), "Blur/../Rain/GT/a.png", "", ""),
    ]
    write_pair_list(path, rows)
    found = survey_restoration(RestorationSources(lists=[str(path)], prompt="sharp"))
    assert (found.prompts, found.kinds) == (("a dog", "sharp"), ("Wet", ""))
    assert [pair.name for pair in found.pairs] == ["Rain/GT/b", "a"]
    assert survey_restoration(sources(root, lists=[str(path)])).kinds == ("Blur", "Rain", "Rain", "Wet", "")
    named = survey_restoration(sources(root, name_is_prompt=True, lists=[str(path)]))
    assert named.prompts == ("x y", "a", "b", "a dog", "a")


def test_a_list_whose_paths_start_elsewhere_and_whose_degraded_pictures_are_passed_over(root: Path) -> None:
    path = root.parent / "list.csv"
    write_pair_list(path, [("gone.png", "GT/b.png", "", "Rain")])
    asked = RestorationSources(lists=[str(path)], list_root=str(root / "Rain"), clean_only=True, prompt="sharp")
    found = survey_restoration(asked)
    assert [(pair.name, pair.lq) for pair in found.pairs] == [("GT/b", None)]
    assert (found.kinds, found.prompts) == (("Rain",), ("sharp",))
    assert found.notes == (f"{path}: has no prompts in a column prompt",)
    with pytest.raises(Refusal, match=r"list.csv:2: there is no file .*Rain.gone.png"):
        survey_restoration(replace(asked, clean_only=False))


def test_originals_alone(root: Path) -> None:
    found = survey_restoration(RestorationSources(originals=[str(root / "Rain/GT"), str(root / "Blur/gt")]))
    assert [(pair.name, pair.lq) for pair in found.pairs] == [("a", None), ("b", None), ("x_y", None)]
    assert not found.paired
    with pytest.raises(Refusal, match=r"some pictures have a degraded partner .*a.png has none; train on either kind"):
        survey_restoration(sources(root, originals=[str(root / "Rain/GT")]))


def test_everything_wrong_is_named_at_once(root: Path, draw: Draw) -> None:
    draw("Snow/LQ/alone.png"), draw("Snow/GT/also alone.png")
    draw("Snow/LQ/size.png", 20, 17), draw("Snow/GT/size.png")
    draw("Snow/LQ/broken.png"), draw("Snow/GT/broken.png").write_bytes(b"no picture")
    draw("Snow/LQ/two.png"), draw("Snow/LQ/two.jpg"), draw("Snow/GT/two.webp")
    draw("Haze/GT/a.png")
    (root / "Notes").mkdir()
    path = root / "list.csv"
    write_pair_list(path, [("Rain/LQ/no.png", "Rain/GT/b.png", "", "")])
    with pytest.raises(Refusal) as caught:
        survey_restoration(sources(root, lists=[str(path), str(root / "gone.csv")], originals=[str(root / "Notes")]))
    snow, size = root / "Snow", root / "Snow" / "LQ" / "size.png"
    assert list(caught.value.problems) == [
        f"{root / 'Haze'}: has no folder LQ in it",
        f"{snow / 'LQ' / 'alone.png'}: has no original of its name in {snow / 'GT'}",
        f"{snow / 'LQ' / 'two.jpg'}: has no original of its name in {snow / 'GT'}",
        f"{snow / 'LQ' / 'two.png'}: has no original of its name in {snow / 'GT'}",
        f"{snow / 'GT' / 'also alone.png'}: has no degraded picture of its name in {snow / 'LQ'}",
        f"{snow / 'GT' / 'two.webp'}: has no degraded picture of its name in {snow / 'LQ'}",
        f"{path}:2: there is no file {root / 'Rain/LQ/no.png'}",
        f"{root / 'gone.csv'}: the list of pairs cannot be read (No such file or directory)",
        f"{root / 'Notes'}: there are no pictures (.png, .jpg, .jpeg, .webp, .bmp, .avif, .tif, .tiff)",
        f"{snow / 'GT' / 'broken.png'}: not a picture, or of a kind that Pillow does not know",
        f"{size}: 20 x 17 pixels, but its original {snow / 'GT' / 'size.png'} has 20 x 16; bring both to one size",
    ]


def test_folders_that_hold_nothing(root: Path, tmp_path: Path) -> None:
    for place, problem in (
        (tmp_path / "no", f"{tmp_path / 'no'}: there is no such folder"),
        (tmp_path, f"{tmp_path}: holds no folder with LQ and GT in it, such as {tmp_path / 'Rain' / 'LQ'}"),
    ):
        with pytest.raises(Refusal) as caught:
            survey_restoration(sources(place))
        assert caught.value.problems == (problem,)
    with pytest.raises(Refusal) as caught:
        survey_restoration(sources(tmp_path, kinds=["bilder ä"]))
    assert caught.value.problems == (f"{root}: has no folder LQ in it", f"{root}: has no folder GT in it")
    (root / "Rain" / "LQ").rename(root / "Rain" / "low")
    with pytest.raises(Refusal) as caught:
        survey_restoration(sources(root / "Rain"))
    assert caught.value.problems == (f"{root / 'Rain'}: has no folder LQ in it",)
    with pytest.raises(
        Refusal, match=r"^no pictures are given: name folders of LQ and GT, a list of pairs, or a folder"
    ):
        survey_restoration(RestorationSources())


def test_the_fingerprint_is_of_content_prompts_and_types(root: Path, tmp_path: Path) -> None:
    first = survey_restoration(sources(root)).fingerprint()
    shutil.move(root, tmp_path / "elsewhere")
    root = tmp_path / "elsewhere"
    assert survey_restoration(sources(root)).fingerprint() == first
    assert survey_restoration(sources(root, prompt="soft")).fingerprint() != first
    with (root / "Rain" / "LQ" / "b.png").open("ab") as file:
        file.write(b"\0")
    assert survey_restoration(sources(root)).fingerprint() != first


def test_prompts_of_names() -> None:
    assert prompt_of_name(Path("x/a_red__house .png")) == "a red house"
