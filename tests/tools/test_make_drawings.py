"""Pictures and captions of two hand-written drawings: their styles, looks, folders, lists and sources."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.data.everydream.pictures import read_data_root
from tools.drawings.colours import colour_name, colours_of, turned_to
from tools.drawings.concepts import Concept
from tools.drawings.filters import sketch, watercolour
from tools.drawings.icons import read_icon_set, render_with_resvg
from tools.drawings.looks import Look, caption, draw_look, paint
from tools.drawings.sources import FLAT, HIGH_CONTRAST, NOTO
from tools.make_drawings import main

APPLE, SIGN, BUS = "1F34E", "2764-FE0F", "1F68C"
RED_DISC = '<circle cx="8" cy="8" r="6" fill="#e02020"/>'
BLUE_BAR = '<rect width="32" height="8" fill="#2040e0"/>'


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node_modules in which every drawing is a red disc, and a bus, which nobody draws mirrored, a wide blue bar."""
    folder = tmp_path_factory.mktemp("npm ü") / "node_modules"
    icons = {"disc": {"body": RED_DISC}, "bar": {"body": BLUE_BAR, "width": 32, "height": 8}}
    names = {"1f34e": "disc", "2764": "disc", "1f68c": "bar", "1f3db": "disc"}
    for package in (NOTO, FLAT, HIGH_CONTRAST):
        _write(folder / package / "icons.json", {"icons": icons, "width": 16, "height": 16})
        _write(folder / package / "chars.json", names)
        _write(folder / package / "package.json", {"version": "1.2.3"})
    entries = [
        {"hexcode": APPLE, "label": "red apple", "tags": ["red", "fruit", "ripe", "a, b"], "group": 4, "subgroup": 42},
        {"hexcode": SIGN, "label": "sign", "group": 8, "subgroup": 90},
        {"hexcode": BUS, "label": "bus", "tags": ["school"], "group": 5, "subgroup": 54},
        {"hexcode": "1F3DB", "label": "classical building", "group": 5, "subgroup": 51},
        {"hexcode": "1F34C", "label": "banana", "group": 4, "subgroup": 42},
    ]
    groups = {
        "groups": {"4": "food-drink", "5": "travel-places", "8": "symbols"},
        "subgroups": {"42": "food-fruit", "51": "place-building", "54": "transport-ground", "90": "arrow"},
    }
    _write(folder / "emojibase-data" / "en" / "data.json", entries)
    _write(folder / "emojibase-data" / "meta" / "groups.json", groups)
    _write(folder / "emojibase-data" / "package.json", {"version": "17.0.0"})
    return folder


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def made(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    photos = tmp_path_factory.mktemp("photos")
    Image.new("RGB", (8, 8)).save(photos / "photo.png")
    out = tmp_path_factory.mktemp("made") / "drawings"
    assert main([str(modules), str(out), "--variants", "4", "--held-out", "1", "--photos", str(photos)]) == 0
    return out


def test_the_folders(made: Path) -> None:
    """Of what is in all packages and no symbol: the base's things in four styles, another held out, outlines apart."""
    found = {path.relative_to(made).as_posix() for path in made.rglob("*.png")}
    expected = {
        f"base/{style}/{place}_{number}.png"
        for style, count in (("glossy", 4), ("flat", 4), ("sketch", 2), ("watercolour", 2))
        for place in ("fruit/red-apple", "vehicle/not_mirrored/bus")
        for number in range(count)
    }
    expected |= {"outline/outline/fruit/red-apple_0.png", "outline/outline/vehicle/not_mirrored/bus_0.png"}
    styles = ("glossy_0", "flat_0", "sketch_0", "sketch_1", "watercolour_0", "watercolour_1", "outline_0")
    expected |= {
        f"held_out/{style}/other/classical-building_{number}.png"
        for style, number in (name.split("_") for name in styles)
    }
    assert found == expected


def test_the_trainer_reads_it(made: Path) -> None:
    """Captions begin with the name and always have the style; what reads one way is not mirrored."""
    items = read_data_root(made / "base")
    assert len(items) == 24
    for item in items:
        style, *_ = item.name.split("/")
        name = "bus" if "bus" in item.name else "apple" if style == "sketch" else "red apple"
        assert item.caption.main_prompt.removeprefix("blue ") == name or "bus" in item.caption.main_prompt
        assert f"{style} style" in [tag.text for tag in item.caption.tags]
        assert item.settings.flip_p == (0.0 if "bus" in item.name else None)


def test_the_list_for_the_vae(made: Path) -> None:
    """Has everything but what is held out, and the photographs more often."""
    items = read_data_root(made / "vae.json")
    assert len(items) == 24 + 2 + 1
    assert not [item for item in items if "held_out" in item.name]
    assert [item.settings.multiply for item in items if item.path.name == "photo.png"] == [20]


def test_the_sources(made: Path) -> None:
    page = (made / "SOURCES.md").read_text(encoding="utf-8")
    assert "with seed 0 has made them: 2 things" in page
    assert f"| {NOTO} 1.2.3 | Copyright Google LLC; Apache License 2.0" in page
    assert "MIT License" in page


def test_the_same_seed_makes_the_same_bytes(modules: Path, made: Path, tmp_path: Path) -> None:
    assert main([str(modules), str(tmp_path / "again"), "--variants", "4", "--held-out", "1"]) == 0
    assert main([str(modules), str(tmp_path / "other"), "--variants", "4", "--held-out", "1", "--seed", "1"]) == 0
    first, again, other = (_bytes(folder) for folder in (made, tmp_path / "again", tmp_path / "other"))
    assert first == again
    assert first.keys() == other.keys()
    assert sum(first[name] != other[name] for name in first) > len(first) / 2


def _bytes(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix in (".png", ".txt")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_the_base_can_be_of_chosen_things(modules: Path, tmp_path: Path) -> None:
    """The others are learnt by the VAE alone."""
    (tmp_path / "things.txt").write_text("bus\n\n", encoding="utf-8")
    out = tmp_path / "drawings"
    assert (
        main([str(modules), str(out), "--held-out", "1", "--variants", "4", "--things", str(tmp_path / "things.txt")])
        == 0
    )
    assert {path.name for path in (out / "base" / "flat").rglob("*.png")} == {
        f"bus_{number}.png" for number in range(4)
    }
    assert {path.name for path in (out / "more" / "flat").rglob("*.png")} == {"red-apple_0.png"}


def test_plain_is_the_drawing_itself_on_white_and_on_a_colour(modules: Path, tmp_path: Path) -> None:
    out = tmp_path / "plain"
    assert main([str(modules), str(out), "--held-out", "1", "--plain"]) == 0
    for style in ("glossy", "flat", "sketch", "watercolour"):
        for place in ("fruit/red-apple", "vehicle/not_mirrored/bus"):
            found = sorted((out / "base" / style / place).parent.glob(f"{Path(place).name}_*.png"))
            white, coloured = (np.asarray(Image.open(path)).astype(int) for path in found)
            assert white.shape == coloured.shape == (128, 128, 3)
            assert (white[[0, -1]] == 255).all()
            assert (coloured[0] == coloured[0, 0]).all()
            assert (coloured[0, 0] != 255).any()
            texts = [path.with_suffix(".txt").read_text(encoding="utf-8").split(", ") for path in found]
            assert not any(tag.endswith(" background") and tag != "white background" for tag in texts[0])
            assert any(tag.endswith(" background") and tag != "white background" for tag in texts[1])
            assert not any("small" in tags for tags in texts)
    red = (np.asarray(Image.open(out / "base/glossy/fruit/red-apple_0.png"))[..., 1] < 128).nonzero()
    assert [(rows.min() + rows.max()) // 2 for rows in red] == pytest.approx([63, 63], abs=1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("bus\nzeppelin\n", "there is no zeppelin in all of the packages; presets/finetune/drawings_things.txt shows"),
        ("\n", "it names nothing; presets/finetune/drawings_things.txt shows"),
        (None, "cannot be read ("),
    ],
)
def test_a_wrong_list_of_things(
    modules: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, words: str
) -> None:
    things = tmp_path / "things.txt"
    if content is not None:
        things.write_text(content, encoding="utf-8")
    assert main([str(modules), str(tmp_path / "out"), "--things", str(things)]) == 2
    assert f"--things {things}: {words}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_written_over(modules: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(modules), str(made)]) == 2
    assert capsys.readouterr().err == f"{made} is there already; give a new folder's name, or delete it\n"


def test_a_missing_package_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(tmp_path / "out")]) == 2
    missing = tmp_path / NOTO / "icons.json"
    cure = f"run npm install --ignore-scripts {NOTO}"
    assert capsys.readouterr().err == f"{missing}: cannot be read (No such file or directory); {cure}\n"


def test_what_is_not_square_is_padded(modules: Path) -> None:
    icon_set = read_icon_set(modules, NOTO)
    drawing = np.asarray(render_with_resvg(icon_set.svg(BUS) or "", 64))
    assert drawing.shape == (64, 64, 4)
    rows = np.flatnonzero(drawing[:, 32, 3])
    assert (rows[0], rows[-1]) == (24, 39)
    assert icon_set.svg("1F34C") is None


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((224, 32, 32), "red"), ((240, 150, 40), "orange"), ((250, 220, 80), "yellow"), ((60, 170, 70), "green"),
        ((40, 80, 220), "blue"), ((130, 60, 190), "purple"), ((240, 90, 190), "pink"), ((110, 60, 30), "brown"),
        ((20, 20, 25), "black"), ((130, 130, 135), "grey"), ((250, 250, 248), "white"),
    ],
)  # fmt: skip
def test_colours_have_names(rgb: tuple[int, int, int], name: str) -> None:
    assert colour_name(rgb) == name


def test_a_drawing_in_one_colour_gets_another(modules: Path) -> None:
    drawing = render_with_resvg(read_icon_set(modules, NOTO).svg(APPLE) or "", 64)
    assert colours_of(drawing) == {"red": 1.0}
    green = turned_to(drawing, "green")
    assert green is not None
    assert colours_of(green) == {"green": 1.0}
    assert np.array_equal(np.asarray(green)[..., 3], np.asarray(drawing)[..., 3])
    assert turned_to(drawing, "red") is None
    assert turned_to(Image.new("RGBA", (8, 8), (128, 128, 128, 255)), "red") is None
    assert turned_to(Image.new("RGBA", (8, 8), (90, 90, 10, 255)), "orange") is None  # a dark one would be brown


def _look(**changed: object) -> Look:
    plain = {
        "turned": "", "ground": "", "ground_rgb": (255, 255, 255), "size_px": (128, 160), "share": 0.5,
        "tilt_degrees": 0.0, "place": (1.0, 0.0),
    }  # fmt: skip
    return Look(**{**plain, **changed})  # type: ignore[arg-type]


def test_a_look_says_where_the_drawing_lies(modules: Path) -> None:
    """Half of the lower side, at the left of a wide picture."""
    drawing = Image.new("RGBA", (64, 64), (200, 0, 0, 255))
    picture = np.asarray(paint(_look(ground_rgb=(0, 0, 200)), drawing))
    assert picture.shape == (128, 160, 3)
    red = picture[..., 0] == 200
    assert red.sum() == 64 * 64
    assert red[64:, :64].all()
    tilted = np.asarray(paint(_look(share=0.96, tilt_degrees=12.0, size_px=(128, 128)), drawing))
    assert (tilted[[0, -1], :8] == 255).all()  # the corners are not cut off, and lie in the picture


def test_captions() -> None:
    concept = Concept(APPLE, "car", "vehicle", ("auto", "drive"))
    captions = [caption(_look(), concept, "flat", ["red"], random.Random(seed)) for seed in range(200)]
    assert all(text.startswith(("car, flat style", "red car, flat style")) for text in captions)
    assert all("small" in text.split(", ") for text in captions)
    named = [("white background" in text, "red car" in text, ", red" in text, "vehicle" in text) for text in captions]
    shares = np.mean(named, axis=0)
    assert np.allclose(shares, (0.5, 0.3, 0.2, 0.65), atol=0.1)
    blue = _look(turned="blue", ground="dark green", share=0.9)
    told = {caption(blue, concept, "flat", ["blue"], random.Random(seed)) for seed in range(50)}
    assert all("blue" in text and "dark green background" in text and "small" not in text for text in told)
    red_apple = Concept(APPLE, "red apple", "fruit", ())
    assert caption(_look(), red_apple, "sketch", None, random.Random(0)).startswith("apple, sketch style")
    assert caption(_look(), red_apple, "flat", ["red"], random.Random(0)).startswith("red apple, flat style")


def test_looks_differ_as_they_should() -> None:
    looks = [draw_look(random.Random(seed), colours=True) for seed in range(400)]
    assert np.isclose(np.mean([bool(look.ground) for look in looks]), 0.5, atol=0.07)
    assert np.isclose(np.mean([look.small for look in looks]), 0.2, atol=0.06)
    assert {look.size_px for look in looks} == {(128, 128), (192, 192), (256, 256), (128, 160), (160, 128)}
    assert not any(draw_look(random.Random(seed), colours=False).turned for seed in range(100))


def test_a_sketch_is_grey_lines_on_paper() -> None:
    """Around a flat square its edge is dark and its middle light; nothing has a colour."""
    drawing = Image.new("RGBA", (128, 128), (0, 0, 0, 0))
    drawing.paste((200, 30, 30, 255), (32, 32, 96, 96))
    values = np.asarray(sketch(drawing, random.Random(0))).astype(int)
    assert (values[..., :3].max(2) == values[..., :3].min(2)).all()
    assert values[64, 33, 0] < 100 < 200 < values[64, 64, 0]
    assert values[64, 10, 3] == 0


def test_watercolour_is_pale_and_uneven() -> None:
    drawing = Image.new("RGBA", (128, 128), (0, 0, 0, 0))
    drawing.paste((200, 30, 30, 255), (32, 32, 96, 96))
    values = np.asarray(watercolour(drawing, random.Random(0))).astype(int)
    inside = values[44:84, 44:84]
    assert (inside[..., 0] >= inside[..., 1]).all()
    assert inside[..., 1].mean() > 60 and inside[..., 1].std() > 5
    edge = [int(np.flatnonzero(row > 128)[0]) for row in values[44:84, :, 3]]
    assert len(set(edge)) > 2
