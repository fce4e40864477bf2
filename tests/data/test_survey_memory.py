"""What a survey remembers of files, and when it looks again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer.data import survey as surveying
from lora_trainer.data.buckets import BucketSettings
from lora_trainer.data.folders import Picture
from lora_trainer.data.images import size_px
from lora_trainer.data.survey import Sample, survey
from lora_trainer.data.survey_memory import FOLDER, Look, SurveyMemory, stamp
from lora_trainer.errors import Refusal
from lora_trainer.user_cache import CACHE_FOLDER

SETTINGS = BucketSettings((64, 64), 32, 128, 32)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """The lengths of the files that are decoded; with a cache of this test's own."""
    monkeypatch.setenv(CACHE_FOLDER, str(tmp_path / "cache"))
    found: list[int] = []

    def counted(data: bytes) -> tuple[int, int]:
        found.append(len(data))
        return size_px(data)

    monkeypatch.setattr(surveying, "size_px", counted)
    return found


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., tuple[Sample, ...]]:
    folder = tmp_path / "ü pictures"
    folder.mkdir()
    for number in range(3):
        Image.new("RGBA", (40 + 8 * number, 50), (200, 10, 10, 100 * number)).save(folder / f"{number}.png")

    def run(whole: bool = True, **changes: Any) -> tuple[Sample, ...]:
        pictures = [Picture(file, file.name, "ü", 1, "a caption", **changes) for file in sorted(folder.glob("*.png"))]
        return survey(pictures, SETTINGS, whole=whole)

    return run


def test_files_that_have_not_changed_are_decoded_once(
    decoded: list[int], look: Callable[..., tuple[Sample, ...]], tmp_path: Path
) -> None:
    first = look()
    assert len(decoded) == 3
    assert look() == first
    assert len(decoded) == 3
    assert [sample.size_px for sample in first] == [(50, 40), (50, 48), (50, 56)]
    changed = tmp_path / "ü pictures" / "1.png"
    Image.new("RGB", (60, 60)).save(changed)
    again = look()
    assert len(decoded) == 4
    assert again[1].size_px == (60, 60)
    assert again[1].digest != first[1].digest
    assert (again[0], again[2]) == (first[0], first[2])


def test_transparency_is_looked_at_when_it_is_asked_for(
    decoded: list[int], look: Callable[..., tuple[Sample, ...]]
) -> None:
    assert not any(sample.alpha_mask for sample in look())
    assert all(sample.alpha_mask for sample in look(alpha_mask=True))
    assert len(decoded) == 6
    assert all(sample.alpha_mask for sample in look(alpha_mask=True))
    assert not any(sample.alpha_mask for sample in look())
    assert len(decoded) == 6


def test_a_look_at_the_header_does_not_stand_for_a_whole_one(
    decoded: list[int], look: Callable[..., tuple[Sample, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = look(whole=False)
    assert decoded == []
    assert look() == first
    assert len(decoded) == 3
    monkeypatch.setattr(surveying, "_header_look", None)  # is not called
    assert look(whole=False) == first
    assert len(decoded) == 3


def test_headers_are_read_once(
    decoded: list[int], look: Callable[..., tuple[Sample, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = look(whole=False)
    monkeypatch.setattr(surveying, "_header_look", None)
    assert look(whole=False) == first
    assert decoded == []


def test_damage_is_found_each_time(decoded: list[int], look: Callable[..., tuple[Sample, ...]], tmp_path: Path) -> None:
    look()
    broken = tmp_path / "ü pictures" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    for _ in range(2):
        with pytest.raises(Refusal, match="damaged"):
            look()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"version": 2}',
     '{"version": 1, "folder": "FOLDER", "pictures": {"0.png": ["SIZE", "TIME", 1, 2, "digest", false]}}',
     '{"version": 3, "folder": "FOLDER", "pictures": {"0.png": ["SIZE", "TIME", 1, 2, "digest", false, true]}}',
     '{"version": 2, "folder": "FOLDER", "pictures": {"0.png": [1, 2]}}',
     '{"version": 2, "folder": "FOLDER", "pictures": {"0.png": ["SIZE", "TIME", "a", 2, "digest", false, true]}}',
     '{"version": 2, "folder": "FOLDER", "pictures": {"0.png": ["SIZE", "TIME", 1, 2, "digest", false, 1]}}',
     '{"version": 2, "folder": "another", "pictures": {"0.png": ["SIZE", "TIME", 1, 2, "digest", false, true]}}'],
)  # fmt: skip
def test_a_cache_that_is_not_sound_is_made_anew(
    decoded: list[int], look: Callable[..., tuple[Sample, ...]], tmp_path: Path, content: str
) -> None:
    first = look()
    (cache,) = (tmp_path / "cache" / FOLDER).iterdir()
    folder = tmp_path / "ü pictures"
    size, changed = stamp(folder / "0.png")
    content = content.replace('"FOLDER"', json.dumps(str(folder))).replace('"SIZE"', str(size))
    cache.write_text(content.replace('"TIME"', str(changed)), encoding="utf-8")
    assert look() == first
    assert len(decoded) == 6
    assert look() == first
    assert len(decoded) == 6


def test_a_cache_that_cannot_be_written_stops_nobody(
    decoded: list[int], look: Callable[..., tuple[Sample, ...]], tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be", encoding="utf-8")
    assert look() == look()
    assert len(decoded) == 6


def test_what_is_written_to_a_file_while_it_is_read_is_another_file(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    memory, when = SurveyMemory(), stamp(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(when[1] + 1, when[1] + 1))
    memory.keep(file, when, Look((1, 1), "of one"))
    assert memory.recall(file) is None
