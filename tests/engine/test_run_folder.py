"""The files of a run in a folder that it may share with others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lora_trainer.engine.run_folder import RESERVED, RunFolder
from lora_trainer.errors import Refusal


def test_another_runs_files_are_set_aside_and_come_back(tmp_path: Path) -> None:
    cat, dog = RunFolder(tmp_path, "cat"), RunFolder(tmp_path, "dog")
    assert cat.status() is None
    cat.claim()
    cat.write_status("stopped", step=4)
    cat.append_metrics({"step": 4, "loss": 0.5})
    for file in (cat.facts_file, cat.report_file):
        file.write_text("of cat", encoding="utf-8")
    dog.claim()
    assert not dog.report_file.exists()
    assert not dog.metrics_file.exists()
    dog.write_status("finished", step=9)
    dog.append_metrics({"step": 9, "loss": 0.1})
    assert (tmp_path / "metrics-cat.jsonl").read_text(encoding="utf-8") == '{"step": 4, "loss": 0.5}\n'
    cat_status, dog_status = cat.status(), dog.status()
    assert cat_status is not None
    assert dog_status is not None
    assert (cat_status["state"], dog_status["state"]) == ("stopped", "finished")
    cat.claim()
    assert json.loads(cat.metrics_file.read_text(encoding="utf-8"))["step"] == 4
    assert (tmp_path / "metrics-dog.jsonl").exists()
    assert [file.read_text(encoding="utf-8") for file in (cat.facts_file, cat.report_file)] == ["of cat"] * 2


def test_a_run_at_work_is_not_disturbed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "cat")
    folder.claim()
    folder.write_status("running", step=1)
    folder.refuse_if_busy()  # this very process
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    status = json.loads(folder.status_file.read_text(encoding="utf-8"))
    status |= {"pid": other.pid, "process_started": psutil.Process(other.pid).create_time()}
    folder.status_file.write_text(json.dumps(status), encoding="utf-8")
    with pytest.raises(Refusal, match=rf"the run cat is at work in this folder \(process {other.pid}\)"):
        RunFolder(tmp_path, "dog").refuse_if_busy()
    other.communicate(b"\n")
    folder.refuse_if_busy()  # it has ended
    status["pid"] = os.getppid()  # a number that another process has got since
    folder.status_file.write_text(json.dumps(status), encoding="utf-8")
    folder.refuse_if_busy()


def test_a_folder_is_kept_from_the_start_on(tmp_path: Path) -> None:
    """Of another program, that loads its models; of one that was killed nothing stays."""
    path = tmp_path / "run"
    code = (
        "from pathlib import Path; from lora_trainer.engine.run_folder import RunFolder; import sys\n"
        "RunFolder(Path(sys.argv[1]), 'cat').reserve(); print('reserved', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(path)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "reserved\n"
    mine = RunFolder(path, "dog")
    for refused in (mine.refuse_if_busy, mine.reserve):
        with pytest.raises(Refusal, match=rf"the run cat is at work in this folder \(process {other.pid}\)"):
            refused()
    other.kill()
    other.communicate()
    mine.refuse_if_busy()
    assert mine.reserve() is False
    assert [file.name for file in path.iterdir()] == [RESERVED]
    mine.release(is_new=False)
    assert path.is_dir()  # it was there before
    path.rmdir()
    mine.release(mine.reserve())
    assert not path.exists()


def test_what_is_in_a_folder_stays_when_it_is_released(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "cat")
    folder.reserve()
    folder.reserve()  # of this very process
    folder.write_status("finished")
    folder.release(is_new=True)
    folder.release(is_new=True)
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]


def test_metrics_of_steps_that_come_again_are_cut(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "cat")
    folder.cut_metrics(3)
    for step in range(1, 6):
        folder.append_metrics({"step": step, "loss": 1 / step})
    with folder.metrics_file.open("a", encoding="utf-8") as file:
        file.write('{"other": 1}\n{"step": 2, "lo')
    folder.cut_metrics(3)
    lines = folder.metrics_file.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_what_is_no_folder_to_write_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder(tmp_path / "new" / "newer", "cat").refuse_if_closed()
    assert not (tmp_path / "new").exists()
    file = tmp_path / "file"
    file.write_text("x")
    for place in (file, file / "below"):
        with pytest.raises(Refusal, match=r"output_dir: .*file is a file, so nothing can be written below it"):
            RunFolder(place, "cat").refuse_if_closed()
    with pytest.raises(Refusal, match=r"output_dir: .*file cannot be made .*; give another folder"):
        RunFolder(file, "cat").claim()
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # a superuser may write anywhere
    with pytest.raises(Refusal, match=r"output_dir: .* may not be written to; give another folder"):
        RunFolder(tmp_path / "new", "cat").refuse_if_closed()
