"""The survey of real little files: sizes, digests, every bad file at once, and the summary."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.data import survey as surveying
from lora_trainer.data.buckets import BucketSettings, Placement
from lora_trainer.data.folders import read_folders, read_subsets
from lora_trainer.data.images import size_px
from lora_trainer.data.subsets import Subset
from lora_trainer.data.survey import data_fingerprint, decode_all, summarize, survey
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


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the files that a survey decodes."""
    found: list[int] = []

    def counted(content: bytes) -> tuple[int, int]:
        found.append(len(content))
        return size_px(content)

    monkeypatch.setattr(surveying, "size_px", counted)
    return found


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Pictures of several kinds, some larger than what is read of them."""
    folder = tmp_path / "1_ä noise"
    folder.mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (160, 320, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 8
    for name in ("a.png", "b.jpg", "c.webp", "d.png"):
        image.resize((128, 96)).save(folder / name, exif=exif, quality=90)
    image.save(folder / "large.png")
    image.resize((640, 640)).save(folder / "large.jpg", quality=100, exif=exif)
    return tmp_path


def test_of_pictures_that_are_decoded_later_headers_are_read(noise: Path, decoded: list[int]) -> None:
    pictures = read_folders(noise, ".txt")
    by_header = survey(pictures, SETTINGS, whole=False)
    assert decoded == []
    assert [sample.size_px for sample in by_header] == [(128, 96)] * 4 + [(640, 640), (160, 320)]
    assert survey(pictures, SETTINGS) == by_header
    assert len(decoded) == 6


def test_a_file_of_which_the_header_proves_nothing_is_decoded(noise: Path, decoded: list[int]) -> None:
    Image.new("RGB", (100, 100)).save(noise / "1_ä noise" / "e.bmp")
    jpeg = noise / "1_ä noise" / "b.jpg"
    jpeg.write_bytes(jpeg.read_bytes() + bytes(100_000))  # what cameras append
    assert len(survey(read_folders(noise, ".txt"), SETTINGS, whole=False)) == 7
    assert sorted(decoded) == sorted([(noise / "1_ä noise" / "e.bmp").stat().st_size, jpeg.stat().st_size])


def test_what_is_cut_off_is_found_by_headers_as_well(noise: Path) -> None:
    files = sorted((noise / "1_ä noise").iterdir())
    for file in files:
        file.write_bytes(file.read_bytes()[:-40])
    reasons = []
    for whole in (False, True):
        with pytest.raises(Refusal) as caught:
            survey(read_folders(noise, ".txt"), SETTINGS, whole=whole)
        reasons.append(caught.value.problems)
    assert reasons[0] == reasons[1]
    assert [problem.partition(": ")[0] for problem in reasons[0]] == [str(file) for file in files]


def test_damage_in_the_middle_is_found_by_who_decodes(noise: Path) -> None:
    large = noise / "1_ä noise" / "large.png"
    content = bytearray(large.read_bytes())
    content[len(content) // 2] ^= 0xFF
    large.write_bytes(content)
    samples = survey(read_folders(noise, ".txt"), SETTINGS, whole=False)
    assert len(samples) == 6
    decode_all([sample for sample in samples if sample.path != large], samples)
    for look in (lambda: decode_all(samples), lambda: survey(read_folders(noise, ".txt"), SETTINGS)):
        with pytest.raises(Refusal) as caught:
            look()
        (problem,) = caught.value.problems
        assert problem.startswith(f"{large}: damaged (")
    samples[0].path.write_bytes(b"")
    with pytest.raises(Refusal) as caught:
        decode_all(samples[:2], samples)
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [str(samples[0].path), str(large)]


def test_transparency_is_decoded_where_it_counts(data: Path, decoded: list[int]) -> None:
    Image.new("RGBA", (96, 96), (9, 9, 9, 100)).save(data / "1_c" / "clear.png")
    pictures = read_subsets([Subset(data / "1_c", "1_c", alpha_mask=True)], data)
    samples = survey(pictures, SETTINGS, whole=False)
    assert [sample.path.stem for sample in samples if sample.alpha_mask] == ["clear"]
    assert len(decoded) == 3


def test_progress_is_told(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surveying, "AT_ONCE", 3)
    heard: list[tuple[int, int]] = []
    survey(read_folders(data, ".txt"), SETTINGS, on_progress=lambda *numbers: heard.append(numbers))
    assert heard == [(3, 4), (4, 4)]


def test_what_was_seen_before_someone_stops_it_is_remembered(
    data: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveying, "AT_ONCE", 1)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        survey(read_folders(data, ".txt"), SETTINGS, workers=1, on_progress=stop)
    seen = len(decoded)
    assert seen >= 1
    survey(read_folders(data, ".txt"), SETTINGS)
    assert len(decoded) == 4
