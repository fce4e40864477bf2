"""`tools.dataset_tool` on tiny sets of every kind."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import re
import shlex
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_trainer.data.labelled_images import survey_images
from tools import dataset_tool

Run = Callable[..., int]
Said = Callable[[], list[str]]


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8).squeeze()


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three in colour, 24 x 16 pixels, in two folders."""
    folder = tmp_path / "bilder ä"
    for seed, name in enumerate(("cats/1.png", "cats/ö.png", "dogs/1.png")):
        save(folder / name, noise(16, 24, seed=seed))
    return folder


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "out put" / "set.zip"


@pytest.fixture
def run(dest: Path) -> Run:
    def tool(source: Path, *words: str, to: Path = dest) -> int:
        return dataset_tool.main(["--source", str(source), "--dest", str(to), *words])

    return tool


@pytest.fixture
def errors(capsys: pytest.CaptureFixture[str]) -> Said:
    return lambda: capsys.readouterr().err.splitlines()


def files(path: Path) -> dict[str, bytes]:
    if path.is_dir():
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def picture(path: Path, number: int) -> np.ndarray:
    with Image.open(io.BytesIO(files(path)[f"00000/img{number:08d}.png"])) as image:
        return np.asarray(image)


def labels(path: Path) -> Any:
    return json.loads(files(path)["dataset.json"])


CROP = ("--resolution", "16", "--transform", "center-crop")


def test_a_folder_becomes_a_zip(photos: Path, dest: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(photos, *CROP) == 0
    assert capsys.readouterr().out == f"{dest}: 3 pictures of 16 x 16 pixels, in colour\n"
    assert list(files(dest)) == [f"00000/img{number:08d}.png" for number in range(3)] + ["dataset.json"]
    assert labels(dest) == {"labels": None}
    for number in range(3):
        assert np.array_equal(picture(dest, number), noise(16, 24, seed=number)[:, 4:20])
    with zipfile.ZipFile(dest) as archive:
        ways = [info.compress_type for info in archive.infolist()]
    assert ways == [zipfile.ZIP_STORED] * 3 + [zipfile.ZIP_DEFLATED]
    assert [path.name for path in dest.parent.iterdir()] == ["set.zip"]
    assert survey_images(dest).shape == (3, 16, 16)


def test_the_same_pictures_make_the_same_bytes(photos: Path, tmp_path: Path, run: Run) -> None:
    first, second = tmp_path / "1.zip", tmp_path / "2.zip"
    assert run(photos, *CROP, "--threads", "1", to=first) == 0
    assert run(photos, *CROP, "--threads", "5", to=second) == 0
    assert first.read_bytes() == second.read_bytes()


def test_a_zip_becomes_a_folder(photos: Path, dest: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert run(photos, *CROP) == 0
    assert run(dest, "--max-images", "2", to=folder) == 0
    assert sorted(files(folder)) == ["00000/img00000000.png", "00000/img00000001.png", "dataset.json"]
    assert np.array_equal(picture(folder, 1), picture(dest, 1))
    assert survey_images(folder).resolution == 16


def test_a_thousand_pictures_a_folder(dest: Path, tmp_path: Path, run: Run) -> None:
    source = tmp_path / "source.zip"
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    with zipfile.ZipFile(source, "w") as archive:
        for number in range(1001):
            archive.writestr(f"{number:04d}.png", buffer.getvalue())
    assert run(source) == 0
    assert list(files(dest))[-2:] == ["00001/img00001000.png", "dataset.json"]


def test_labels_are_kept(photos: Path, dest: Path, tmp_path: Path, run: Run) -> None:
    table = {"labels": [["dogs/1.png", 7], ["cats\\1.png", 2], ["cats/ö.png", 0]]}
    (photos / "dataset.json").write_text(json.dumps(table), encoding="utf-8")
    assert run(photos, *CROP) == 0
    made = {"labels": [["00000/img00000000.png", 2], ["00000/img00000001.png", 0], ["00000/img00000002.png", 7]]}
    assert labels(dest) == made
    vectors = {"labels": [[name, [label / 2, 1]] for name, label in table["labels"]]}
    (photos / "dataset.json").write_text(json.dumps(vectors), encoding="utf-8")
    assert run(photos, *CROP, to=tmp_path / "2.zip") == 0
    assert labels(tmp_path / "2.zip")["labels"][2] == ["00000/img00000002.png", [3.5, 1]]
    assert run(photos, *CROP, "--labels", "none", to=tmp_path / "3.zip") == 0
    assert labels(tmp_path / "3.zip") == {"labels": None}


@pytest.mark.parametrize("above", ["", "set/", "set/inner/"])
def test_folders_become_classes(
    photos: Path, dest: Path, run: Run, capsys: pytest.CaptureFixture[str], above: str
) -> None:
    source = dest.with_name("source.zip")
    source.parent.mkdir()
    with zipfile.ZipFile(source, "w") as archive:
        for name, data in files(photos).items():
            archive.writestr(above + name, data)
        archive.writestr(f"{above}cats/more/1.png", files(photos)["cats/1.png"])
    assert run(source, *CROP, "--labels", "folders") == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["class 0: cats", "class 1: dogs"]
    made = labels(dest)
    assert [label for _, label in made["labels"]] == [0, 0, 0, 1]
    assert made["classes"] == ["cats", "dogs"]


def test_labels_that_do_not_fit(photos: Path, dest: Path, run: Run, errors: Said) -> None:
    place = photos / "dataset.json"
    place.write_text('{"labels": [["cats/1.png", 1], ["x.png", 1]]}')
    assert run(photos, *CROP) == 2
    assert errors() == [
        f"{place}: labels of files that are not there: x.png; take them out",
        f"{place}: no label for cats/ö.png, dogs/1.png; add them, or take the pictures out",
        f"{place}: to do without labels, add --labels none",
    ]
    save(photos / "loose.png", noise(16, 24))
    assert run(photos, *CROP, "--labels", "folders") == 2
    assert errors() == [f"{photos}: --labels folders, but in no folder of a class lie loose.png; move them into one"]
    assert not dest.exists()


@pytest.mark.parametrize(
    ("words", "size", "inner"),
    [
        (("--transform", "center-crop", "--resolution", "16"), 16, noise(16, 24)[:, 4:20]),
        (("--transform", "center-crop-wide", "--resolution", "24x16"), 24, noise(16, 24)),
        (("--transform", "center-crop-wide", "--resolution", "16x8"), 16, None),
        (("--transform", "pad", "--resolution", "24"), 24, noise(16, 24)),
    ],
)
def test_transforms(photos: Path, dest: Path, run: Run, words: tuple[str, ...], size: int, inner: Any) -> None:
    assert run(photos, *words) == 0
    made = picture(dest, 0)
    assert made.shape == (size, size, 3)
    height, width = (8, 16) if inner is None else inner.shape[:2]
    top, left = (size - height) // 2, (size - width) // 2
    middle = made[top : top + height, left : left + width]
    if inner is None:
        whole = Image.fromarray(noise(16, 24)[2:14])
        inner = np.asarray(whole.resize((16, 8), Image.Resampling.LANCZOS))
    assert np.array_equal(middle, inner)
    assert int(made.sum()) == int(middle.sum())


@pytest.mark.parametrize(("name", "kernel"), dataset_tool.FILTERS.items())
def test_filters(tmp_path: Path, dest: Path, run: Run, name: str, kernel: Image.Resampling) -> None:
    save(tmp_path / "square" / "1.png", noise(32, 32))
    assert run(tmp_path / "square", "--resolution", "8", "--resize-filter", name) == 0
    assert np.array_equal(picture(dest, 0), np.asarray(Image.fromarray(noise(32, 32)).resize((8, 8), kernel)))


@pytest.mark.parametrize("alpha", ["white", "black", "drop"])
def test_transparency(tmp_path: Path, dest: Path, run: Run, errors: Said, alpha: str) -> None:
    pixels = noise(8, 8, 4)
    save(tmp_path / "clear" / "1.png", pixels)
    save(tmp_path / "clear" / "2.png", pixels[..., :3])
    path = tmp_path / "clear"
    assert run(path) == 2
    assert errors() == [
        f"{path}: an alpha channel, which says what is transparent: 1.png",
        f"{path}: to make them alike, add --alpha white",
    ]
    assert run(path, "--alpha", alpha) == 0
    share = pixels[..., 3:] / 255
    wanted = {"white": pixels[..., :3] * share + 255 * (1 - share), "black": pixels[..., :3] * share}
    difference = picture(dest, 0) - wanted.get(alpha, pixels[..., :3]).astype(np.float64)
    assert np.abs(difference).max() <= (0 if alpha == "drop" else 1)
    assert np.array_equal(picture(dest, 1), pixels[..., :3])


def test_colour_and_grey(tmp_path: Path, dest: Path, run: Run, errors: Said) -> None:
    path = tmp_path / "mixed"
    save(path / "1.png", noise(8, 8))
    save(path / "2.png", noise(8, 8))
    save(path / "3.png", noise(8, 8, 1))
    assert run(path) == 2
    assert errors() == [
        f"{path}: most pictures are in colour, but these are grey: 3.png",
        f"{path}: to make them alike, add --channels rgb",
    ]
    assert run(path, "--channels", "rgb") == 0
    assert np.array_equal(picture(dest, 2), noise(8, 8, 1)[..., None].repeat(3, 2))
    grey = tmp_path / "grey.zip"
    assert run(path, "--channels", "gray", to=grey) == 0
    assert np.array_equal(picture(grey, 0), np.asarray(Image.fromarray(noise(8, 8)).convert("L")))
    assert survey_images(grey).channels == 1


def test_shapes_that_no_option_was_given_for(photos: Path, dest: Path, run: Run, errors: Said) -> None:
    save(photos / "square.png", noise(16, 16))
    many = "cats/1.png, cats/ö.png, dogs/1.png"
    assert run(photos) == 2
    assert errors() == [
        f"{photos}: most pictures have 24 x 16 pixels, but not these: square.png (16 x 16)",
        f"{photos}: 24 x 16 pixels are not square: {many}",
        f"{photos}: to make them alike, add --resolution 16 --transform center-crop",
    ]
    assert run(photos, "--resolution", "64") == 2
    assert errors()[-1] == f"{photos}: to make them alike, add --transform center-crop"
    assert run(photos, "--transform", "center-crop") == 2
    assert errors() == ["--transform center-crop needs to know the size; add --resolution 256"]
    assert run(photos, "--transform", "center-crop", "--resolution", "32x16") == 2
    assert errors() == [
        "--resolution 32x16 is not square; give --resolution 16, or add --transform center-crop-wide, which lays such "
        "pictures on a black square"
    ]
    assert not dest.parent.exists()


def test_broken_pictures_are_listed_at_the_end(
    photos: Path, dest: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (photos / "cats/1.png").read_bytes()
    (photos / "a.png").write_bytes(b"no picture")
    (photos / "b.png").write_bytes(whole[:400])
    assert run(photos, *CROP) == 2
    first, cure = capsys.readouterr().err.splitlines()
    assert first.startswith(f"{photos}: a.png: not a picture, or of a kind that Pillow does not know; replace it")
    assert cure == f"{photos}: to leave such pictures out, add --skip-broken"
    (photos / "a.png").unlink()
    assert run(photos, *CROP) == 2
    assert capsys.readouterr().err.startswith(f"{photos}: b.png: damaged (")
    assert not list(dest.parent.iterdir())
    (photos / "a.png").write_bytes(b"no picture")
    assert run(photos, *CROP, "--skip-broken", "--labels", "none") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{dest}: 3 pictures of 16 x 16 pixels, in colour"
    assert said[1].startswith(f"{photos}: a.png: ")
    assert said[2].startswith(f"{photos}: b.png: ")
    assert said[3] == "2 pictures that cannot be read were left out"
    assert np.array_equal(picture(dest, 0), noise(16, 24, seed=0)[:, 4:20])


def test_nothing_but_broken_pictures(tmp_path: Path, run: Run, errors: Said) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.png").write_bytes(b"x")
    assert run(tmp_path / "bad", "--skip-broken") == 2
    assert errors()[-1] == f"{tmp_path / 'bad'}: no picture is left"


def test_what_is_there_is_not_overwritten(photos: Path, dest: Path, tmp_path: Path, run: Run, errors: Said) -> None:
    dest.parent.mkdir()
    dest.write_bytes(b"mine")
    assert run(photos, *CROP) == 2
    assert errors() == [f"{dest}: exists already; remove it, or give another --dest"]
    assert dest.read_bytes() == b"mine"
    assert run(photos, *CROP, to=dest.parent) == 2
    assert errors() == [f"{dest.parent}: the folder is not empty; empty it, or give another --dest"]
    assert run(photos, *CROP, to=photos / "new") == 2
    assert errors() == [f"{photos / 'new'}: lies in the folder that is read, {photos}; give a --dest outside of it"]
    assert run(photos, *CROP, to=tmp_path / "a.tar") == 2
    assert errors()[0].startswith(f"{tmp_path / 'a.tar'}: a data set is a zip or a folder; give a name")


@pytest.mark.parametrize("name", ["set.zip", "set"])
def test_it_appears_whole_or_not_at_all(
    photos: Path, tmp_path: Path, run: Run, errors: Said, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    target = tmp_path / "new" / name
    left = target.with_name(f".tmp-77-{name}")
    left.mkdir(parents=True)

    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("lora_trainer.data.dataset_making.label_json", full)
        assert run(photos, *CROP, to=target) == 2
    assert errors() == [f"{target}: cannot be written ([Errno 28] No space left on device)"]
    assert list(target.parent.iterdir()) == []
    assert run(photos, *CROP, to=target) == 0


def test_small_pictures_and_odd_sizes_are_told(photos: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    save(photos / "large.png", noise(60, 60))
    assert run(photos, "--resolution", "48", "--transform", "center-crop") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "3 of them were smaller and have been enlarged",
        "the networks of the gan trainer do not take 48 pixels, but for example 32",
    ]


def test_cifar(tmp_path: Path, dest: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        for number in range(1, 6):
            pixels = noise(2, 3072, 1, seed=number)
            data = pickle.dumps({b"data": pixels, b"labels": [number, 9]}, protocol=4)
            member = tarfile.TarInfo(f"cifar-10-batches-py/data_batch_{number}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert run(tmp_path / "cifar-10-python.tar.gz", "--max-images", "9") == 0
    assert capsys.readouterr().out == f"{dest}: 9 pictures of 32 x 32 pixels, in colour, 6 different labels\n"
    assert np.array_equal(picture(dest, 3), noise(2, 3072, 1, seed=2)[1].reshape(3, 32, 32).transpose(1, 2, 0))
    assert [label for _, label in labels(dest)["labels"]] == [1, 9, 2, 9, 3, 9, 4, 9, 5]
    assert survey_images(dest, cond=True).label_dim == 10


def test_mnist(tmp_path: Path, dest: Path, run: Run, errors: Said) -> None:
    pixels = noise(28 * 5, 28, 1).reshape(5, 28, 28)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">4I", 0x0803, 5, 28, 28) + pixels.tobytes()))
    assert run(path) == 2
    assert errors() == [f"{path}: the file of its labels is not beside it; put it there, or give --labels none"]
    label_file = tmp_path / "train-labels-idx1-ubyte.gz"
    label_file.write_bytes(gzip.compress(struct.pack(">2I", 0x0801, 5) + bytes([3, 1, 4, 1, 5])))
    assert run(path) == 0
    assert np.array_equal(picture(dest, 4), np.pad(pixels[4], 2))
    assert [label for _, label in labels(dest)["labels"]] == [3, 1, 4, 1, 5]
    assert survey_images(dest, cond=True).shape == (1, 32, 32)


def test_an_lmdb(tmp_path: Path, dest: Path, run: Run, errors: Said) -> None:
    lmdb = pytest.importorskip("lmdb")
    path = tmp_path / "church_lmdb"
    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for number in range(5):
            buffer = io.BytesIO()
            Image.fromarray(noise(20, 30, seed=number)).save(buffer, "WEBP", lossless=True)
            transaction.put(f"{5 - number:040x}".encode(), buffer.getvalue())
    assert run(path, *CROP, "--max-images", "4") == 0
    wanted = Image.fromarray(noise(20, 30, seed=4)[:, 5:25]).resize((16, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(picture(dest, 0), np.asarray(wanted))
    assert len(files(dest)) == 5
    dest.unlink()
    assert run(path) == 2
    assert errors()[-1] == f"{path}: to make them alike, add --resolution 16 --transform center-crop"
    assert run(path, *CROP, "--labels", "folders") == 2
    assert errors() == [f"{path}: --labels folders is for a folder or a zip; leave it out"]


def test_what_is_no_source(tmp_path: Path, run: Run, errors: Said) -> None:
    assert run(tmp_path / "no") == 2
    assert errors() == [f"{tmp_path / 'no'}: there is no such file or folder; correct --source"]
    (tmp_path / "a.rar").write_bytes(b"x")
    assert run(tmp_path / "a.rar") == 2
    assert errors() == [
        f"{tmp_path / 'a.rar'}: not a kind of file that pictures are taken from; give a folder, a zip, an LMDB, "
        "cifar-10-python.tar.gz or train-images-idx3-ubyte.gz"
    ]
    (tmp_path / "b_lmdb").mkdir()
    assert run(tmp_path / "b_lmdb") == 2
    assert errors()[0].startswith(f"{tmp_path / 'b_lmdb'}: cannot be opened as an LMDB (")


@pytest.mark.parametrize(
    "words", [("--resolution", "0"), ("--resolution", "8x"), ("--resolution", "99999"), ("--threads", "0")]
)
def test_numbers_that_make_no_sense(photos: Path, run: Run, words: tuple[str, ...], errors: Said) -> None:
    with pytest.raises(SystemExit) as caught:
        run(photos, *words)
    assert caught.value.code == 2
    assert f"argument {words[0]}: {words[1]} is not a" in errors()[-1]


def test_the_documentation_has_every_option_and_takes_its_own_commands() -> None:
    page = (Path(__file__).parents[2] / "docs" / "gan.md").read_text(encoding="utf-8")
    parser = dataset_tool._parser()
    lines = re.findall(r"^python -m tools\.dataset_tool (.*)$", page + (dataset_tool.__doc__ or ""), re.MULTILINE)
    assert len(lines) == 9
    for words in lines:
        parser.parse_args(shlex.split(words))
    for option in parser._actions[1:]:
        told = [line for line in page.splitlines() if option.option_strings[0] in line]
        assert told, option.option_strings
        assert all(f"`{choice}`" in page for choice in (option.choices or ()) if isinstance(choice, str))
