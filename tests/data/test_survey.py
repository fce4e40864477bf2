"""The survey of real little files: sizes, digests, every bad file at once, and the summary."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import pytest
from PIL import Image

from lora_trainer.data.buckets import BucketSettings, Placement
from lora_trainer.data.folders import read_folders, read_subsets
from lora_trainer.data.subsets import Subset
from lora_trainer.data.survey import data_fingerprint, summarize, survey
from lora_trainer.errors import Refusal

SETTINGS = BucketSettings((128, 128), step_px=32)
PHOTOS = Path(__file__).parents[2] / "presets" / "photos"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, size in {"2_ä b/wide.png": (160, 80), "2_ä b/tall.png": (64, 96), "1_c/square.png": (200, 200)}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", size, "orange").save(path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (96, 64)).save(tmp_path / "1_c" / "turned.jpg", exif=exif)
    return tmp_path


def test_samples(data: Path) -> None:
    samples = survey(read_folders(data, ".txt"), SETTINGS, workers=2)
    assert [(s.name, s.size_px, s.repeats, s.placement) for s in samples] == [
        ("1_c/square.png", (200, 200), 1, Placement((128, 128), (128, 128), (0, 0))),
        ("1_c/turned.jpg", (96, 64), 1, Placement((96, 64), (96, 64), (0, 0))),
        ("2_ä b/tall.png", (96, 64), 2, Placement((96, 64), (96, 64), (0, 0))),
        ("2_ä b/wide.png", (80, 160), 2, Placement((64, 160), (80, 160), (8, 0))),
    ]
    bytes_of_first = (data / "1_c" / "square.png").read_bytes()
    assert samples[0].digest == blake2b(bytes_of_first, digest_size=16).hexdigest()


def test_summary(data: Path) -> None:
    summary = summarize(survey(read_folders(data, ".txt"), SETTINGS))
    assert (summary.pictures, summary.uses) == (4, 6)
    assert summary.pictures_in == {"1_c": 2, "2_ä b": 2}
    assert summary.repeats_of == {"1_c": 1, "2_ä b": 2}
    assert summary.uses_in == {(64, 160): 2, (96, 64): 3, (128, 128): 1}
    assert summary.mean_aspect_error == pytest.approx((160 / 64 - 2) / 4)


def test_all_bad_files_are_named_at_once(data: Path) -> None:
    pictures = read_folders(data, ".txt")
    tall, wide = data / "2_ä b" / "tall.png", data / "2_ä b" / "wide.png"
    tall.write_bytes(tall.read_bytes()[:60])
    wide.unlink()
    Image.new("RGB", (20, 300)).save(data / "1_c" / "square.png")
    with pytest.raises(Refusal) as caught:
        survey(pictures, SETTINGS)
    small, damaged, gone = caught.value.problems
    assert small.startswith(f"{data / '1_c' / 'square.png'}: 300 x 20 px (height x width) is too small or too narrow")
    assert damaged.startswith(f"{tall}: damaged (")
    assert gone == f"{wide}: cannot be read (No such file or directory)"


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    (tmp_path / "1_a").mkdir()
    for number in range(23):
        (tmp_path / "1_a" / f"{number:02}.png").write_bytes(b"")
    with pytest.raises(Refusal) as caught:
        survey(read_folders(tmp_path, ".txt"), SETTINGS)
    assert len(caught.value.problems) == 21
    assert caught.value.problems[0] == f"{tmp_path / '1_a' / '00.png'}: the file is empty"
    assert caught.value.problems[20] == "... and 3 more pictures"


def test_fingerprint_is_of_the_content_and_not_of_the_place(
    data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    samples = survey(read_folders(data, ".txt"), SETTINGS)
    fingerprint = data_fingerprint(samples)
    moved = tmp_path_factory.mktemp("moved") / "set"
    data.rename(moved)
    assert data_fingerprint(survey(read_folders(moved, ".txt"), SETTINGS, workers=1)) == fingerprint
    for change in ({"caption": "x"}, {"repeats": 9}, {"digest": "0"}, {"name": "2_x/y.png"}):
        assert data_fingerprint([replace(samples[0], **change), *samples[1:]]) != fingerprint


def test_the_photographs_that_come_with_the_presets() -> None:
    samples = survey(read_folders(PHOTOS, ".txt"), BucketSettings((128, 128), step_px=32, min_reso_px=64, upscale=True))
    assert len(samples) == 12
    assert {sample.repeats for sample in samples} == {2}
    assert all(sample.caption.startswith(("photo of ", "black and white photo of ")) for sample in samples)
    assert set(summarize(samples).uses_in) == {(96, 160), (128, 128), (160, 96)}
    sources = (PHOTOS / "SOURCES.md").read_text(encoding="utf-8")
    assert all(sample.path.name in sources for sample in samples)
    assert sum(file.stat().st_size for file in PHOTOS.rglob("*") if file.is_file()) < 300_000


def test_planning_the_data_does_not_wait_for_torch() -> None:
    modules = "folders, images, buckets, survey, captions, batches"
    code = f"import sys; from lora_trainer.data import {modules}; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"


def test_masks_are_looked_at_with_their_pictures(data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    masks = tmp_path_factory.mktemp("masks")
    for name in ("square", "turned"):
        Image.new("L", (9, 9), 255).save(masks / f"{name}.png")
    pictures = read_subsets([Subset(data / "1_c", "1_c", conditioning_data_dir=masks, alpha_mask=True)], data)
    samples = survey(pictures, SETTINGS)
    assert [sample.mask for sample in samples] == [masks / "square.png", masks / "turned.png"]
    fingerprint = data_fingerprint(samples)
    Image.new("L", (9, 9), 100).save(masks / "square.png")
    assert data_fingerprint(survey(pictures, SETTINGS)) != fingerprint
    for name in ("square", "turned"):
        (masks / f"{name}.png").write_bytes(b"nothing")
    with pytest.raises(Refusal) as caught:
        survey(pictures, SETTINGS)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        str(masks / "square.png"),
        str(masks / "turned.png"),
    ]


def test_only_a_picture_with_a_transparent_part_has_a_mask_in_itself(data: Path) -> None:
    opaque = Image.new("RGBA", (96, 96), (9, 9, 9, 255))
    opaque.save(data / "1_c" / "opaque.png")
    opaque.putpixel((5, 5), (9, 9, 9, 254))
    opaque.save(data / "1_c" / "pierced.png")
    samples = survey(read_subsets([Subset(data / "1_c", "1_c", alpha_mask=True)], data), SETTINGS)
    assert [sample.path.stem for sample in samples if sample.alpha_mask] == ["pierced"]
