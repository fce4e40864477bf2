"""`tools.extract_subimages` and `tools.make_lmdb`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.data.lmdb_folder import LmdbFolder
from tools import extract_subimages, make_lmdb


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "bilder ä"
    (folder / "sub").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
    Image.fromarray(noise).save(folder / "sub" / "ö.png")
    return folder


def test_squares_cover_the_picture_and_end_at_its_border(pictures: Path, tmp_path: Path) -> None:
    assert extract_subimages.starts(40, 24, 12) == [0, 12, 16]
    assert extract_subimages.starts(20, 24, 12) == [0]
    out = tmp_path / "out"
    arguments = ["--input", str(pictures), "--output", str(out), "--size", "24", "--step", "16"]
    assert extract_subimages.main(arguments) == 0
    squares = sorted((out / "sub").glob("*.png"))
    assert [square.name for square in squares] == [f"ö_s{number:03d}.png" for number in range(1, 7)]
    with Image.open(pictures / "sub" / "ö.png") as whole, Image.open(squares[-1]) as last:
        assert np.array_equal(np.array(last), np.array(whole)[16:, 32:])


def test_partners_are_cut_at_the_same_places(pictures: Path, tmp_path: Path) -> None:
    low = tmp_path / "low"
    low.mkdir()
    with Image.open(pictures / "sub" / "ö.png") as whole:
        Image.fromarray(np.array(whole)[::4, ::4]).save(low / "ö.png")
    arguments = ["--size", "24", "--step", "16", "--scale", "4", "--input", str(low), "--output", str(tmp_path / "out")]
    assert extract_subimages.main(arguments) == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 6
    with Image.open(tmp_path / "out" / "ö_s006.png") as last, Image.open(low / "ö.png") as whole:
        assert np.array_equal(np.array(last), np.array(whole)[4:, 8:])


def test_an_lmdb_gives_the_files_back(pictures: Path, tmp_path: Path) -> None:
    target = tmp_path / "hr ü.lmdb"
    assert make_lmdb.main([str(pictures), str(target)]) == 0
    assert (target / "meta_info.txt").read_text(encoding="utf-8") == "sub/ö.png (40,56,3) 1\n"
    folder = LmdbFolder(target)
    assert folder.names() == ["sub/ö"]
    assert folder.read("sub/ö") == (pictures / "sub" / "ö.png").read_bytes()


def test_what_is_refused(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_lmdb.main([str(pictures), str(tmp_path / "hr")]) == 2
    assert "ends in .lmdb" in capsys.readouterr().err
    (pictures / "broken.png").write_bytes(b"no picture")
    assert make_lmdb.main([str(pictures), str(tmp_path / "hr.lmdb")]) == 2
    assert "broken.png: not a picture" in capsys.readouterr().err
    assert not (tmp_path / "hr.lmdb").exists()
    assert extract_subimages.main(["--input", str(tmp_path / "no"), "--output", "x"]) == 2
    assert "there are no pictures" in capsys.readouterr().err
    assert extract_subimages.main(["--input", str(pictures), "--output", "x", "--size", "25", "--scale", "2"]) == 2
    assert "must be multiples of --scale 2" in capsys.readouterr().err
    assert extract_subimages.main(["--input", str(pictures), "--output", "x", "--scale", "0"]) == 2
    assert "must be at least 1" in capsys.readouterr().err
    full = ["--input", str(pictures), "--output", str(tmp_path)]
    assert extract_subimages.main(full) == 2
    assert "there is something already; remove it or give another --output" in capsys.readouterr().err


def test_names_that_would_overwrite_each_other(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = pictures / "sub" / "ö.bmp"
    Image.new("RGB", (8, 8)).save(twin)
    assert make_lmdb.main([str(pictures), str(tmp_path / "hr.lmdb")]) == 2
    assert extract_subimages.main(["--input", str(pictures), "--output", str(tmp_path / "out")]) == 2
    sentence = f"{twin.with_suffix('.png')}: there is another picture of that name, {twin}; rename one of them"
    assert capsys.readouterr().err.splitlines() == [sentence, sentence]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bilder ä"]


def test_many_pictures_and_deep_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(make_lmdb.AT_ONCE + 3):
        Image.new("L", (2, 2), number % 256).save(source / f"{number:04d} (1).png")
    assert make_lmdb.main([str(source), str(tmp_path / "many.lmdb")]) == 0
    folder = LmdbFolder(tmp_path / "many.lmdb")
    assert list(folder.names()) == [f"{number:04d} (1)" for number in range(make_lmdb.AT_ONCE + 3)]
    assert folder.read("0257 (1)") == (source / "0257 (1).png").read_bytes()
    assert sorted(file.name for file in folder.path.iterdir()) == ["data.mdb", "meta_info.txt"]
    deep = source / ("d" * 200) / ("e" * 200) / ("f" * 120)
    deep.mkdir(parents=True)
    Image.new("L", (2, 2)).save(deep / "a.png")
    assert make_lmdb.main([str(source), str(tmp_path / "deep.lmdb")]) == 2
    assert "a.png: its name takes 524 bytes, and LMDB takes 511; shorten it" in capsys.readouterr().err
