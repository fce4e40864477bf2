"""A running training hears keys and files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lora_trainer.engine import commands
from lora_trainer.engine.cadence import NEVER, Cadence
from lora_trainer.engine.checkpoints import CheckpointFolder
from lora_trainer.engine.commands import COMMANDS, SAVE, STOP, Commands, forget_old_commands
from lora_trainer.engine.kept_files import Keep
from lora_trainer.engine.signals import Stopped
from tests.engine.small_run import run, small, status


class Pressed:
    def __init__(self, *rounds: str) -> None:
        self.rounds = list(rounds)

    def pressed(self) -> str:
        return self.rounds.pop(0) if self.rounds else ""

    def restore(self) -> None:
        self.rounds.clear()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "LOOK_EVERY_S", 0.0)


def test_keys_and_files_are_heard_once(tmp_path: Path) -> None:
    heard = Commands(tmp_path, Pressed("xS", "", "ssq"))
    heard.look()
    assert heard.heard == {SAVE}
    heard.heard.clear()
    (tmp_path / "save.now").touch()
    heard.look()
    assert heard.heard == {SAVE}
    assert not (tmp_path / "save.now").exists()
    heard.heard.clear()
    heard.look()
    assert heard.heard == {SAVE, STOP}
    heard.heard.clear()
    heard.look()
    assert heard.heard == set()


def test_the_disk_is_asked_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "LOOK_EVERY_S", 1.0)
    heard = Commands(tmp_path)
    (tmp_path / "save.now").touch()
    began = time.monotonic()
    while not heard.heard:
        heard.look()
        assert time.monotonic() - began < 5
    assert time.monotonic() - began > 0.9


def test_files_of_before_are_forgotten(tmp_path: Path) -> None:
    for command in COMMANDS:
        (tmp_path / command.file).touch()
    (tmp_path / "stop.later").touch()
    forget_old_commands(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["stop.later"]
    forget_old_commands(tmp_path / "not there")


def commanded(out: Path, made: dict[int, str]) -> object:
    """A run in whose folder the files are made during the steps."""

    def make(step: int) -> None:
        if step in made:
            (out / made[step]).touch()

    trainer = small(after=make)
    try:
        result = run(
            trainer,
            out,
            commands=Commands(out),
            checkpoint=NEVER,
            save=Cadence(every_n_steps=10),
            keep=Keep(states=True),
        )
    except Stopped as stopped:
        return stopped.exit_status
    assert result == out / "run.bin"
    return trainer.previews


def test_saving_and_drawing_on_demand_do_not_change_the_training(tmp_path: Path) -> None:
    assert commanded(tmp_path / "plain", {}) == []
    assert commanded(tmp_path / "asked", {2: "save.now", 5: "sample.now", 9: "save.now"}) == ["000006"]
    found = sorted(path.name for path in (tmp_path / "asked").glob("run*"))
    assert found == [
        "run-state", "run-step00000003-state", "run-step00000003.bin", "run-step00000010-state",
        "run-step00000010.bin", "run.bin",
    ]  # fmt: skip
    assert (tmp_path / "asked" / "run.bin").read_bytes() == (tmp_path / "plain" / "run.bin").read_bytes()


def test_a_run_stops_after_its_epoch_with_a_file_and_goes_on(tmp_path: Path) -> None:
    assert commanded(tmp_path / "plain", {}) == []
    out = tmp_path / "asked"
    assert commanded(out, {5: "stop.epoch"}) == 0
    assert sorted(path.name for path in out.glob("run*")) == ["run-000002-state", "run-000002.bin"]
    assert (status(out)["state"], status(out)["step"], status(out)["exit_status"]) == ("stopped", 8, 0)
    assert commanded(out, {}) == []
    assert (out / "run.bin").read_bytes() == (tmp_path / "plain" / "run.bin").read_bytes()


def test_a_run_stops_at_once_without_a_file(tmp_path: Path) -> None:
    assert commanded(tmp_path, {4: "stop.now"}) == 0
    assert list(tmp_path.glob("run*")) == []
    found = CheckpointFolder(tmp_path / "checkpoints" / "run").newest()
    assert found is not None
    assert found.step == 5


def test_stopping_after_the_last_epoch_is_finishing(tmp_path: Path) -> None:
    assert commanded(tmp_path, {9: "stop.epoch", 11: "stop.now"}) == []
    assert status(tmp_path)["state"] == "finished"


LISTENER = """
import sys, time
from pathlib import Path
from lora_trainer.engine import commands
commands.LOOK_EVERY_S = 0.0
with commands.listening(Path(sys.argv[1]), True) as heard:
    print("ready", heard.keys is not None, flush=True)
    until = time.monotonic() + float(sys.argv[2])
    while len(heard.heard) < 2 and time.monotonic() < until:
        heard.look()
        time.sleep(0.01)
    print(sorted(each.key for each in heard.heard), flush=True)
    if len(sys.argv) > 3:
        raise KeyboardInterrupt
"""


@pytest.mark.skipif(os.name == "nt", reason="a pseudo-terminal of POSIX")
@pytest.mark.parametrize("ends_badly", [False, True])
def test_single_keys_of_the_terminal_are_heard_and_it_is_as_before_afterwards(tmp_path: Path, ends_badly: bool) -> None:
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENER, str(tmp_path), "20", *(["badly"] if ends_badly else [])],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),
    )
    assert process.stdout is not None
    assert process.stdout.readline().split() == ["ready", "True"]
    assert not termios.tcgetattr(theirs)[3] & (termios.ICANON | termios.ECHO)
    assert termios.tcgetattr(theirs)[3] & termios.ISIG  # Ctrl-C is still a signal
    os.write(ours, b"p")
    os.write(ours, b"e")
    assert process.stdout.readline().strip() == "['e', 'p']"
    assert (process.wait(timeout=20) != 0) == ends_badly
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def test_without_a_terminal_there_are_no_keys(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTENER, str(tmp_path), "0.05"],
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["ready False", "[]"]
