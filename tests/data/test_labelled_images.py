"""A data set of a GAN is surveyed by its headers, and every fault of it is named with its cure."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_trainer.data.image_labels import BadLabels, ImageLabels, label_json, read_labels
from lora_trainer.data.image_misfits import dataset_command
from lora_trainer.data.labelled_images import keep_decoded, survey_images
from lora_trainer.data.pixel_file import PixelFolder
from lora_trainer.errors import Refusal

PRESETS = Path(__file__).parents[2] / "presets" / "gan"

WriteSet = Callable[..., Path]
Sizes = Sequence[tuple[int, int]]


def pixels(number: int, width: int = 16, height: int = 16, mode: str = "RGB") -> Image.Image:
    channels = {"RGB": 3, "RGBA": 4, "L": 1}[mode]
    noise = np.random.default_rng(number).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(noise.squeeze())


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def write_set(tmp_path: Path) -> WriteSet:
    """`write_set({"a.png": data}, labels=[...], folder=True)`"""

    def write(files: dict[str, bytes], labels: Any = ..., folder: bool = False) -> Path:
        if labels is not ...:
            files = {**files, "dataset.json": json.dumps({"labels": labels}).encode()}
        path = tmp_path / ("set ü" if folder else "set.zip")
        if folder:
            for name, data in files.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(data)
            return path
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path

    return write


def five(mode: str = "RGB") -> dict[str, bytes]:
    return {f"00000/{number}.png": encoded(pixels(number, mode=mode)) for number in range(5)}


CLASSES = [[f"00000/{number}.png", [2, 0, 2, 1, 0][number]] for number in range(5)]


def refusal(path: Path, **settings: Any) -> list[str]:
    with pytest.raises(Refusal) as caught:
        survey_images(path, **settings)
    return list(caught.value.problems)


@pytest.mark.parametrize("folder", [True, False])
def test_pictures_and_labels(write_set: WriteSet, folder: bool) -> None:
    images = survey_images(write_set(five(), CLASSES, folder=folder), cond=True)
    assert (len(images), images.shape, images.label_dim, images.notes) == (5, (3, 16, 16), 3, ())
    assert images.name(4) == "00000/4.png"
    assert np.array_equal(images.image(3), np.asarray(pixels(3)).transpose(2, 0, 1))
    assert images.label([3, 0]).tolist() == [[0, 1, 0], [0, 0, 1]]
    assert images.label([3]).dtype == np.float32


def test_mirrored_pictures_follow_the_others(write_set: WriteSet) -> None:
    images = survey_images(write_set(five("L"), CLASSES), cond=True, mirror=True)
    assert (len(images), images.shape) == (10, (1, 16, 16))
    assert np.array_equal(images.image(7), np.asarray(pixels(2, mode="L"))[None, :, ::-1])
    assert images.name(7) == "00000/2.png"
    assert images.label([7, 2]).tolist() == [[0, 0, 1]] * 2


def test_labels_may_be_numbers(write_set: WriteSet) -> None:
    labels = [[f"00000\\{number}.png", [number / 2, -1]] for number in range(5)]
    images = survey_images(write_set(five(), labels), cond=True)
    assert images.label([4, 1]).tolist() == [[2, -1], [0.5, -1]]
    assert images.labels is not None
    assert images.labels.spoken == "labels of 2 numbers"


def test_labels_of_one_folder_within(write_set: WriteSet) -> None:
    files = {f"set/{name}": data for name, data in five().items()}
    path = write_set({**files, "set/dataset.json": json.dumps({"labels": CLASSES}).encode()})
    assert survey_images(path, cond=True).label_dim == 3


def test_kinds_of_files(write_set: WriteSet) -> None:
    """A palette is colours and no grey, sixteen bits become eight, and a turned photograph stands upright."""
    upright = pixels(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "a.png": encoded(upright.quantize(256)),
        "b.jpg": encoded(upright, "JPEG"),
        "c.webp": encoded(upright, "WEBP", lossless=True),
        "d.bmp": encoded(upright, "BMP"),
        "e.png": encoded(upright.transpose(Image.Transpose.ROTATE_90), exif=exif),
        "f.tga": encoded(upright, "TGA"),
        "g.gif": encoded(upright, "GIF"),
    }
    images = survey_images(write_set(files))
    for item in (2, 3, 4, 5):
        assert np.array_equal(images.image(item), np.asarray(upright).transpose(2, 0, 1)), images.name(item)
    deep = Image.fromarray(np.full((8, 8), 65535, np.uint16))
    grey = survey_images(write_set({"1.png": encoded(deep), "2.png": encoded(Image.new("1", (8, 8), 1))}))
    assert (grey.shape, int(grey.image(0).min()), int(grey.image(1).min())) == ((1, 8, 8), 255, 255)


def test_headers_longer_than_what_is_read_first(write_set: WriteSet) -> None:
    profile = np.random.default_rng(0).bytes(40000)
    clear = encoded(pixels(0).quantize(16), icc_profile=profile, transparency=3)
    assert clear.index(b"tRNS") > 2**14
    path = write_set({"1.jpg": encoded(pixels(1), "JPEG", icc_profile=profile), "2.png": clear})
    assert refusal(path)[0] == f"{path}: an alpha channel, which says what is transparent: 2.png"


def test_what_does_not_fit_is_told_at_once_with_its_cure(write_set: WriteSet) -> None:
    files = {
        **five(),
        "b.png": encoded(pixels(0, mode="RGBA")),
        "c.png": encoded(pixels(0, mode="L")),
        "d.png": encoded(pixels(0, 24, 16)),
        "e.png": b"no picture",
        "f.png": encoded(pixels(0))[:20],
    }
    path = write_set(files)
    problems = refusal(path, cond=True)
    assert problems[0] == f"{path}: cond needs labels, but there is no dataset.json; add one, or leave cond out"
    assert problems[1].startswith(f"{path}: e.png: not a picture, or of a kind that Pillow does not know; replace it")
    assert problems[2].startswith(f"{path}: f.png: ")
    assert problems[3:] == [
        f"{path}: an alpha channel, which says what is transparent: b.png",
        f"{path}: most pictures are in colour, but these are grey: c.png",
        f"{path}: most pictures have 16 x 16 pixels, but not these: d.png (24 x 16)",
        f"{path}: make a data set of it with: python -m tools.dataset_tool --source {path} "
        f"--dest {path.with_name('set-new.zip')} --alpha white --channels rgb --resolution 16 --transform center-crop",
    ]


def test_sizes_that_networks_do_not_take(write_set: WriteSet) -> None:
    path = write_set({"a.png": encoded(pixels(0, 24, 20))}, folder=True)
    cure = f'{path}: make a data set of it with: python -m tools.dataset_tool --source "{path}" --dest "{path}-new.zip"'
    assert refusal(path) == [
        f"{path}: 24 x 20 pixels are not square: a.png",
        f"{cure} --resolution 16 --transform center-crop",
    ]
    (path / "a.png").write_bytes(encoded(pixels(0, 48, 48)))
    assert refusal(path) == [
        f"{path}: 48 x 48 pixels, but the networks take squares of 8, 16, 32, 64 and so on",
        f"{cure} --resolution 32",
    ]
    assert survey_images(path, power_of_two=False).resolution == 48
    (path / "b.png").write_bytes(encoded(pixels(0, 48, 40)))
    assert refusal(path)[-1] == f"{cure} --resolution 32 --transform center-crop"
    for file in path.iterdir():
        file.write_bytes(encoded(pixels(0, 4, 4)))
    assert refusal(path)[-1] == f"{cure} --resolution 8"


def test_the_command_for_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path / "set")
    command = f"--source {tmp_path / 'set'} --dest {tmp_path / 'set-new.zip'} --alpha white"
    assert dataset_command(Path(), "--alpha white") == f"python -m tools.dataset_tool {command}"


def test_only_the_first_of_many_are_named(write_set: WriteSet) -> None:
    files = {f"{number:02d}.png": encoded(pixels(0, 8 if number < 30 else 16, 16)) for number in range(70)}
    problem = refusal(write_set(files))[0]
    assert "these: 00.png (8 x 16), 01.png (8 x 16), " in problem
    assert problem.endswith(" 19.png (8 x 16) and 10 more")
    broken = {f"{number:02d}.png": b"x" for number in range(30)}
    problems = refusal(write_set(broken))
    assert (len(problems), problems[-1]) == (21, "... and 10 more")
    few = {f"{number}.png": encoded(pixels(0, mode="L" if number else "RGB")) for number in range(3)}
    assert refusal(write_set(few))[0].endswith("most pictures are grey, but these are in colour: 0.png")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (CLASSES[:3], "no label for 00000/3.png, 00000/4.png; add them, or take the pictures out"),
        ([*CLASSES, ["x.png", 1]], "labels of files that are not there: x.png; take them out"),
        (
            [*CLASSES[:4], ["00000/4.png", [1.0, 2]]],
            "labels of different kinds: 00000/0.png has class 2, 00000/4.png has 2 numbers; give all the same",
        ),
        ([*CLASSES, ["00000/4.png", 2]], "row 6 of labels: 00000/4.png has two labels, class 0 and class 2; keep one"),
        ([["a.png"]], 'row 1 of labels: ["a.png"] is not a file name and a label'),
        ([["a.png", -1]], "row 1 of labels: a.png: classes are numbered from 0 to at most 99999, not -1"),
        ([["a.png", "cat"]], 'row 1 of labels: a.png: "cat" is neither a class such as 6 nor a list of numbers'),
        ([["a.png", [1, float("nan")]]], "row 1 of labels: a.png: [1, NaN] is neither a class such as 6 nor a list"),
        ([["a.png", True]], "row 1 of labels: a.png: true is neither a class such as 6 nor a list of numbers"),
        ({"a.png": 1}, '"labels" is an object; it should be "labels": [["00000/img00000000.png", 6], ...]'),
        (None, "cond needs labels, but there are none in it; add them, or leave cond out"),
        ([], "cond needs labels, but there are none in it; add them, or leave cond out"),
    ],
)
def test_bad_labels(write_set: WriteSet, labels: Any, sentence: str) -> None:
    path = write_set(five(), labels)
    (problem,) = refusal(path, cond=True)
    assert problem.startswith(f"{path / 'dataset.json'}: {sentence}")
    notes = survey_images(path).notes
    assert len(notes) == (1 if labels else 0)  # without cond they are no reason to stop


def test_labels_that_cannot_be_read() -> None:
    for data, sentence in (
        (b"{", "not JSON (Expecting property name"),
        (b'{"labels": "\xff"}', "not UTF-8 (invalid start byte at byte 12)"),
        (b"[]", "a list instead of an object"),
        (b"[" * 100000, "not JSON (maximum recursion depth"),
    ):
        with pytest.raises(BadLabels) as caught:
            read_labels(data)
        assert str(caught.value).startswith(sentence)
    table = {"ä.png": 3, "b.png": 0}
    assert read_labels(label_json(table)) == table
    assert json.loads(label_json({})) == {"labels": None}
    assert json.loads(label_json({"a.png": 0}, ["cat"])) == {"labels": [["a.png", 0]], "classes": ["cat"]}
    assert read_labels(label_json({"a.png": (1.0, 0.25)})) == {"a.png": (1.0, 0.25)}


def test_what_is_said_of_labels(write_set: WriteSet) -> None:
    path = write_set(five(), CLASSES)
    assert survey_images(path).notes == (f"{path / 'dataset.json'}: its labels are not used without cond",)
    assert survey_images(path).label([0, 1]).shape == (2, 0)
    gap = write_set(five(), [[name, label * 2 + 1] for name, label in CLASSES])
    assert survey_images(gap, cond=True).notes == (f"{gap / 'dataset.json'}: no picture has class 0, 2, 4",)
    assert ImageLabels(np.array([1, 1]), 2).spoken == "2 classes"


def test_the_digest_follows_content_and_labels(write_set: WriteSet) -> None:
    def digest(files: dict[str, bytes], labels: Any = CLASSES, **settings: Any) -> str:
        return survey_images(write_set(files, labels), cond=True, **settings).digest

    first = digest(five())
    assert digest(five(), mirror=True) == first
    assert digest(five(), [[name, 2 - label] for name, label in CLASSES]) != first
    assert digest({**five(), "00000/0.png": encoded(pixels(9))}) != first
    folder = write_set(five(), CLASSES, folder=True)
    before = survey_images(folder).digest
    (folder / "00000" / "0.png").write_bytes(encoded(pixels(9)))
    assert survey_images(folder).digest != before


def test_damage_that_headers_do_not_show_is_named_when_it_is_met(write_set: WriteSet) -> None:
    path = write_set({**five(), "00000/2.png": encoded(pixels(2))[:300]})
    images = survey_images(path)
    with pytest.raises(Refusal, match=r"00000/2.png: damaged .* replace it, or take it out"):
        images.image(2)
    folder = write_set(five(), folder=True)
    images = survey_images(folder)
    (folder / "00000/1.png").write_bytes(encoded(pixels(1, 8, 8)))
    with pytest.raises(Refusal, match=r"00000/1.png: changed since the start; start again"):
        images.image(1)


def test_other_processes_open_the_zip_themselves(write_set: WriteSet) -> None:
    images = survey_images(write_set(five(), CLASSES), cond=True, mirror=True)
    copy = pickle.loads(pickle.dumps(images))
    assert np.array_equal(copy.image(6), images.image(6))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert np.array_equal(pool.submit(images.image, 6).result(), images.image(6))


def test_decoded_pictures_are_kept(write_set: WriteSet, tmp_path: Path) -> None:
    path = write_set(five(), folder=True)
    images = survey_images(path, mirror=True)
    folder = PixelFolder(tmp_path / "kept", 1)
    told: list[tuple[int, int]] = []
    kept = keep_decoded(images, folder, lambda done, total: told.append((done, total)))
    assert told == [(number, 5) for number in range(1, 6)]
    assert Path(kept.cache).stat().st_size == 5 * 3 * 16 * 16
    for item in range(10):
        assert np.array_equal(kept.image(item), images.image(item))
    told.clear()
    assert keep_decoded(images, folder, lambda done, total: told.append((done, total))) == kept
    assert not told
    (path / "00000" / "0.png").write_bytes(encoded(pixels(9)))
    again = keep_decoded(survey_images(path), folder)
    assert np.array_equal(again.image(0), np.asarray(pixels(9)).transpose(2, 0, 1))
    assert keep_decoded(images, PixelFolder(tmp_path / "kept", 0)) is images


def test_damaged_pictures_are_found_when_all_are_decoded(write_set: WriteSet, tmp_path: Path) -> None:
    images = survey_images(write_set({**five(), "00000/2.png": encoded(pixels(2))[:300]}))
    with pytest.raises(Refusal, match=r"00000/2.png: damaged"):
        keep_decoded(images, PixelFolder(tmp_path / "kept", 1))
    assert list((tmp_path / "kept").iterdir()) == []


def test_progress_is_told(write_set: WriteSet) -> None:
    told: list[tuple[int, int]] = []
    survey_images(write_set(five()), progress=lambda done, total: told.append((done, total)))
    assert told == [(number, 5) for number in range(1, 6)]


def test_the_digits_that_come_with_the_presets() -> None:
    images = survey_images(PRESETS / "digits.zip", cond=True)
    assert (len(images), images.shape, images.label_dim, images.notes) == (1700, (1, 32, 32), 10, ())
    assert [int(images.label([item]).argmax()) for item in range(10)] == list(range(10))
    assert {int(images.image(item).max()) for item in range(1700)} <= {221, 238, 255}
    assert (PRESETS / "digits.zip").stat().st_size < 700_000
    assert "digits.zip" in (PRESETS / "SOURCES.md").read_text(encoding="utf-8")
