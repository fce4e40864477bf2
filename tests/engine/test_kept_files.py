"""The last files and states stay, nothing else is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lora_trainer.engine.cadence import Cadence
from lora_trainer.engine.checkpoints import read_state
from lora_trainer.engine.kept_files import SD_SCRIPTS_NAMES, Keep, keep_state, surplus
from lora_trainer.engine.plan import kept_rows
from lora_trainer.engine.run_folder import RunFolder
from tests.engine.small_run import run, small


def test_names_are_those_of_sd_scripts() -> None:
    assert SD_SCRIPTS_NAMES.after_epoch("ein lauf", 2, 400) == "ein lauf-000002"
    assert SD_SCRIPTS_NAMES.after_step("ein lauf", 2, 1234567) == "ein lauf-step01234567"


def test_files_and_states_are_counted_each_by_what_they_were_saved_for(tmp_path: Path) -> None:
    keep = Keep(states=True, epoch_files=1, step_files=2, epoch_states=2, step_states=1)
    run(small(), tmp_path, save=Cadence(1, 2), keep=keep)
    assert sorted(path.name for path in tmp_path.glob("run*")) == [
        "run-000001-state", "run-000002-state", "run-000002.bin", "run-state", "run-step00000008.bin",
        "run-step00000010-state", "run-step00000010.bin", "run.bin",
    ]  # fmt: skip
    steps = {path.name: found.step for path in tmp_path.glob("*-state") if (found := read_state(path))}
    assert steps == {"run-000001-state": 4, "run-000002-state": 8, "run-step00000010-state": 10, "run-state": 12}


def test_only_this_runs_files_are_surplus_the_oldest_first(tmp_path: Path) -> None:
    theirs = (
        "runner-000001.bin",
        "run-000001.pt",
        "run-0000001.bin",
        "run-000001",
        "run-best.bin",
        "run-000001.bin-state",
    )
    ours = (
        "run-000009.bin",
        "run-000002.bin",
        "run-000003.bin",
    )  # in the order of writing: --restart begins at 1 again
    for number, name in enumerate((*theirs, *ours)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (number, number))
    folder = RunFolder(tmp_path, "run")
    assert [path.name for path in surplus(folder, ".bin", Keep(epoch_files=1))] == ["run-000009.bin", "run-000002.bin"]
    assert list(surplus(folder, ".bin", Keep(epoch_files=3))) == []
    assert list(surplus(folder, ".bin", Keep())) == []


@pytest.mark.parametrize("links", [True, False])
def test_a_state_takes_the_place_of_one_of_that_name_and_shares_bytes_where_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError("no links on this file system")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    checkpoint, state = tmp_path / "step-00000004", tmp_path / "run-state"
    for folder, text in ((checkpoint, "new"), (state, "old")):
        folder.mkdir()
        for name in ("state.pt", "manifest.json"):
            (folder / name).write_text(text, encoding="utf-8")
    keep_state(checkpoint, state)
    assert [(state / name).read_text(encoding="utf-8") for name in ("state.pt", "manifest.json")] == ["new", "new"]
    assert (state / "state.pt").samefile(checkpoint / "state.pt") == links
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-state", "step-00000004"]


def test_the_plan_says_what_stays() -> None:
    assert kept_rows(Keep()) == []
    assert kept_rows(Keep(state_at_end=True)) == [("states", "at the end")]
    assert kept_rows(Keep(states=True, epoch_files=2, step_states=1)) == [
        ("states", "beside every file and at the end"),
        ("of these stay", "the last 2 files saved by epochs, the last 1 states saved by steps"),
    ]
