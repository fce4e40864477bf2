"""A survey says where it is only when it takes long."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from lora_trainer.data import survey as surveying
from lora_trainer.data.buckets import BucketSettings
from lora_trainer.data.folders import Picture
from lora_trainer.trainers.diffusion import looking
from lora_trainer.trainers.diffusion.looking import look_at_pictures


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Picture]:
    monkeypatch.setattr(surveying, "AT_ONCE", 2)
    monkeypatch.setattr(logging.getLogger("lora_trainer"), "propagate", True)
    files = [tmp_path / f"{number}.png" for number in range(6)]
    for number, file in enumerate(files):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(file)
    return [Picture(file, file.name, "a", 1, "") for file in files]


def said(pictures: list[Picture], caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="lora_trainer"):
        samples = look_at_pictures(pictures, BucketSettings((64, 64), 32, 128, 32), whole=False)
    assert [sample.name for sample in samples] == [picture.name for picture in pictures]
    return caplog.messages


def test_only_a_long_survey_is_heard_of(
    pictures: list[Picture], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(pictures, caplog) == []
    monkeypatch.setattr(looking, "PATIENCE_S", 0.0)
    assert said(pictures, caplog) == ["looking at 6 pictures"]
    monkeypatch.setattr(looking, "PLAIN_EVERY_S", 0.0)
    assert said(pictures, caplog) == [
        "looking at 6 pictures",
        "looked at 2 of 6 pictures",
        "looked at 4 of 6 pictures",
        "looked at 6 of 6 pictures",
    ]
