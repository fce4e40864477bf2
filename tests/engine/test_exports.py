"""What a run writes on its way, before an error and by the clock, under the names that its trainer gives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lora_trainer.engine.cadence import Cadence, Timer
from lora_trainer.engine.checkpoints import CheckpointFolder
from lora_trainer.engine.kept_files import Names
from lora_trainer.engine.phase import Batch
from lora_trainer.engine.signals import Stopped, StopRequest
from lora_trainer.engine.validation import Validation
from tests.engine.small_run import Numbers, Small, rows, run, small, status


class Told(Names):
    """Names that say what happened."""

    def after_epoch(self, name: str, epoch: int, done: int) -> str:
        return f"{name}-e{epoch}-{done}"

    def after_step(self, name: str, epoch: int, done: int) -> str:
        return f"{name}-s{epoch}-{done}"

    def at_end(self, name: str, epoch: int, done: int) -> str:
        return f"{name}-end-{epoch}-{done}"

    def at_stop(self, name: str, epoch: int, done: int) -> str:
        return f"{name}-stop-{epoch}-{done}"

    def at_error(self, name: str, epoch: int, done: int) -> str:
        return f"{name}-error-{epoch}-{done}"


class Unreadable(Numbers):
    """The pictures of a step are gone."""

    def __call__(self, step: int) -> list[Batch]:
        if step == 7:
            raise OSError(5, "Input/output error", "cat.jpg")
        return super().__call__(step)


def files(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.bin"))


def test_epochs_of_different_length_and_the_first_that_counts(tmp_path: Path) -> None:
    ends = (5, 9, 11, 12)
    run(small(), tmp_path, names=Told(), save=Cadence(1, 7, first_epoch=2), epoch_ends=ends)
    assert files(tmp_path) == ["run-e2-9", "run-e3-11", "run-end-4-12", "run-s2-7"]
    assert [row["epoch"] for row in rows(tmp_path)] == [1, 1, 2, 2, 3, 4]


def test_an_error_outside_of_a_step_loses_nothing(tmp_path: Path) -> None:
    trainer = small()
    trainer.data = Unreadable()
    with pytest.raises(OSError, match=re.escape("cat.jpg")):
        run(trainer, tmp_path, names=Told(), checkpoint=Cadence())
    assert files(tmp_path) == ["run-error-2-7"]
    newest = CheckpointFolder(tmp_path / "checkpoints" / "run").newest()
    assert newest is not None and newest.step == 7
    assert status(tmp_path)["state"] == "failed"
    run(small(), tmp_path / "undisturbed", names=Told())
    run(small(), tmp_path, names=Told())
    ends = [(folder / "run-end-3-12.bin").read_bytes() for folder in (tmp_path, tmp_path / "undisturbed")]
    assert ends[0] == ends[1]


def test_an_error_within_a_step_leaves_the_file_alone(tmp_path: Path) -> None:
    def fail(step: int) -> None:
        if step == 6:
            raise KeyError("in a step")

    trainer = small()
    trainer.after = fail
    with pytest.raises(KeyError):
        run(trainer, tmp_path, names=Told(), checkpoint=Cadence())
    assert files(tmp_path) == ["run-error-2-6"]
    assert CheckpointFolder(tmp_path / "checkpoints" / "run").newest() is None


def test_a_signal_saves_a_file_where_its_name_is_known(tmp_path: Path) -> None:
    stop = StopRequest()
    trainer = small()
    trainer.after = lambda step: setattr(stop, "signal", 15) if step == 5 else None
    with pytest.raises(Stopped):
        run(trainer, tmp_path, stop, names=Told())
    assert files(tmp_path) == ["run-stop-2-6"]


def test_the_clock_asks_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restarted: list[float] = []
    monkeypatch.setattr(Timer, "due", lambda self: self.seconds == 60 and len(restarted) == 5)
    monkeypatch.setattr(Timer, "restart", lambda self: restarted.append(self.seconds))
    run(small(), tmp_path, names=Told(), save_minutes=1, checkpoint=Cadence(0, 1), checkpoint_minutes=2)
    assert files(tmp_path) == ["run-end-3-12", "run-s1-4"]


def test_a_validation_before_the_first_step_and_names_with_their_place(tmp_path: Path) -> None:
    class Measuring(Small):
        def validate(self, folder: Path, label: str, done: int) -> dict[str, float]:
            return {"loss/val": float(done), "plain": 1.0}

    plain = small()
    trainer = Measuring(plain.layer, plain.phases, plain.data)
    run(trainer, tmp_path, validation=Validation(Cadence(1), {"loss/val": False}, first=True))
    found = [(row["step"], row["loss/val"], row["val/plain"]) for row in rows(tmp_path) if "loss/val" in row]
    assert found == [(0, 0.0, 1.0), (4, 4.0, 1.0), (8, 8.0, 1.0), (12, 12.0, 1.0)]
