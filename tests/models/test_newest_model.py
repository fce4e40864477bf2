"""findlast finds the newest model of other runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lora_trainer.errors import Refusal
from lora_trainer.models.newest_model import newest_model


def put(folder: Path, seconds: int) -> Path:
    folder.mkdir(parents=True)
    index = folder / "model_index.json"
    index.write_text("{}", encoding="utf-8")
    os.utime(index, (seconds, seconds))
    return folder


def test_the_youngest_one_counts_wherever_it_lies(tmp_path: Path) -> None:
    put(tmp_path / "a" / "ckpts" / "last-a-ep03-gs00120", 100)
    youngest = put(tmp_path / "b" / "ckpts" / "b-ep01-gs00010", 200)
    put(tmp_path / "b" / "ckpts" / "b-ep01-gs00010_ema", 300)
    put(tmp_path / "mine" / "ckpts" / "mine-ep01", 400)
    assert newest_model(tmp_path, without=tmp_path / "mine") == youngest
    assert newest_model(tmp_path).name == "mine-ep01"


def test_where_there_is_none_or_it_failed_the_person_must_choose(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="there is no diffusers folder below"):
        newest_model(tmp_path / "no")
    put(tmp_path / "a" / "errored-a-ep03", 100)
    with pytest.raises(Refusal, match="is of a run that failed; name the model"):
        newest_model(tmp_path)
