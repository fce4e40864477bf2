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
