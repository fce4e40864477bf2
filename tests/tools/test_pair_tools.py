"""`tools.make_degradations` and `tools.make_pair_list`, one after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.data.pair_list import read_pair_list
from lora_trainer.data.restoration_pairs import RestorationSources, survey_restoration
from tools import make_degradations, make_pair_list


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    folder = tmp_path / "bilder ä"
    (folder / "sub").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (10, 14, 3), np.uint8)
    Image.fromarray(noise).resize((56, 40)).save(folder / "sub" / "ö.png")
    Image.fromarray(noise).resize((48, 64)).save(folder / "a_cat.jpg")
    return folder


def test_pairs_of_all_five_types_are_a_data_set(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "paare ü"
    assert make_degradations.main([str(clean), str(out)]) == 0
    assert capsys.readouterr().out.endswith(f"{out}: 10 pairs of Blur, Haze, Lowlight, Rain, Snow\n")
    found = survey_restoration(RestorationSources(folders=[str(out)]))
    assert found.kinds == tuple(kind for kind in ("Blur", "Haze", "Lowlight", "Rain", "Snow") for _ in range(2))
    assert [pair.name for pair in found.pairs[:2]] == ["Blur/a_cat", "Blur/sub/ö"]
    for pair in found.pairs[1::2]:
        with (
            Image.open(clean / "sub" / "ö.png") as original,
            Image.open(pair.gt) as gt,
            Image.open(pair.lq or "") as lq,
        ):
            assert np.array_equal(np.array(gt), np.array(original))
            assert not np.array_equal(np.array(lq), np.array(original))
    again = tmp_path / "again"
    assert make_degradations.main([str(clean), str(again), "--threads", "1"]) == 0
    written = {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*.png")}
    assert written == {file.relative_to(again).as_posix(): file.read_bytes() for file in again.rglob("*.png")}
    other = tmp_path / "other"
    assert make_degradations.main([str(clean), str(other), "--seed", "1", "--types", "Rain"]) == 0
    assert (other / "Rain" / "LQ" / "a_cat.png").read_bytes() != written["Rain/LQ/a_cat.png"]


def test_variants_and_sizes(clean: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--types", "Snow", "--variants", "2", "--short-side", "32", "--strength", "1", "1"]
    assert make_degradations.main([str(clean), str(out), *options]) == 0
    first, second = (out / "Snow" / "LQ" / f"a_cat_{number}.png" for number in (1, 2))
    assert first.read_bytes() != second.read_bytes()
    with Image.open(first) as cat, Image.open(out / "Snow" / "GT" / "sub" / "ö_2.png") as other:
        assert (cat.size, other.size) == ((32, 43), (45, 32))


def test_what_make_degradations_refuses(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for options, sentence in (
        (["--strength", "0.8", "0.2"], "--strength 0.8 0.2: write two numbers from 0 to 1, the smaller one first"),
        (["--variants", "0"], "--variants and --threads must be at least 1"),
        (["--short-side", "8"], "--short-side 8: must be at least 16"),
    ):
        assert make_degradations.main([str(clean), str(out), *options]) == 2
        assert capsys.readouterr().err == f"{sentence}\n"
    assert make_degradations.main([str(clean), str(clean)]) == 2
    assert "there is something already; remove it or give another folder" in capsys.readouterr().err
    Image.new("RGB", (8, 40)).save(clean / "thin.png")
    assert make_degradations.main([str(clean), str(out)]) == 2
    assert f"{clean / 'thin.png'}: 8 x 40 pixels; at least 16 are needed either way" in capsys.readouterr().err
    Image.new("RGB", (80, 40)).save(clean / "thin.jpg")
    assert make_degradations.main([str(clean), str(out)]) == 2
    assert "there is another picture of that name" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == [clean.name]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_list_of_folders(clean: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    out, path = tmp_path / "paare ü", tmp_path / "listen" / f"liste.{ending}"
    path.parent.mkdir()
    make_degradations.main([str(clean), str(out), "--types", "Rain", "Blur"])
    capsys.readouterr()
    assert make_pair_list.main([str(out), "--output", str(path), "--names-as-prompts"]) == 0
    assert capsys.readouterr().out == f"{path}: 4 pairs (Blur 2, Rain 2)\n"
    rows = read_pair_list(path)
    assert [(row.kind, row.prompt) for row in rows] == [
        ("Blur", "a cat"),
        ("Blur", "ö"),
        ("Rain", "a cat"),
        ("Rain", "ö"),
    ]
    if ending == "csv":
        assert "../paare ü/Rain/LQ/sub/ö.png,../paare ü/Rain/GT/sub/ö.png,ö,Rain\n" in path.read_text(encoding="utf-8")
    by_list = survey_restoration(RestorationSources(lists=[str(path)]))
    by_folder = survey_restoration(RestorationSources(folders=[str(out)]))
    assert [pair.digest for pair in by_list.pairs] == [pair.digest for pair in by_folder.pairs]
    assert make_pair_list.main([str(out), "--output", str(path)]) == 2
    assert "exists already; remove it, give another name, or say --overwrite" in capsys.readouterr().err
    assert (
        make_pair_list.main([str(out), "--output", str(path), "--overwrite", "--types", "Rain", "--prompt", "x"]) == 0
    )
    assert [(row.kind, row.prompt) for row in read_pair_list(path)] == [("Rain", "x")] * 2


def test_what_make_pair_list_refuses(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    assert make_pair_list.main([str(clean), "--output", str(path)]) == 2
    assert f"{clean}: holds no folder with LQ and GT in it" in capsys.readouterr().err
    assert make_pair_list.main([str(clean), "--output", str(tmp_path / "a.txt")]) == 2
    assert "a.txt: the name of a list of pairs ends in .csv or .parquet" in capsys.readouterr().err
    assert make_pair_list.main([str(clean), "--output", str(tmp_path / "no" / "a.csv")]) == 2
    assert f"{tmp_path / 'no'}: there is no such folder to write the list to" in capsys.readouterr().err
    for side, width in (("LQ", 30), ("GT", 40)):
        (clean / "Rain" / side).mkdir(parents=True)
        Image.new("RGB", (width, 20)).save(clean / "Rain" / side / "a.png")
    assert make_pair_list.main([str(clean), "--output", str(path)]) == 2
    assert "a.png: 30 x 20 pixels, but its original" in capsys.readouterr().err
    assert not path.exists()
