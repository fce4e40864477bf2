"""A run goes on from a state of its own or of another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_trainer.engine.cadence import NEVER, Cadence
from lora_trainer.engine.checkpoints import read_state
from lora_trainer.engine.kept_files import Keep
from lora_trainer.engine.resume import Resumed, find_start
from lora_trainer.engine.run_folder import RunFolder
from lora_trainer.engine.signals import Stopped, StopRequest
from lora_trainer.engine.validation import Validation
from lora_trainer.errors import Refusal
from tests.engine.small_run import run, small, status

STATES: dict[str, Any] = {"save": Cadence(every_n_epochs=1), "keep": Keep(states=True)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A finished run of twelve steps with states at 4, 8 and 12."""
    run(small(), tmp_path / "source", **STATES)
    return tmp_path / "source"


def resumed(state: Path) -> Resumed:
    found = read_state(state)
    assert found is not None
    return Resumed(str(state), found)


def stop_after(step: int, out: Path, *, from_state: Resumed) -> None:
    stop = StopRequest()

    def ask(at: int) -> None:
        stop.signal = 15 if at == step - 1 else None

    with pytest.raises(Stopped):
        run(small(after=ask), out, stop, from_state)


def test_a_run_from_a_state_makes_the_bytes_of_the_whole_run(source: Path, tmp_path: Path) -> None:
    run(small(), tmp_path / "other", resumed=resumed(source / "run-000001-state"))
    assert (tmp_path / "other" / "run.bin").read_bytes() == (source / "run.bin").read_bytes()
    assert status(tmp_path / "other")["resumed"] == str(source / "run-000001-state")


def test_its_own_newer_checkpoint_comes_first_and_an_older_one_does_not(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lora_trainer")
    out = tmp_path / "other"
    stop_after(6, out, from_state=resumed(source / "run-000001-state"))
    folder, made = RunFolder(out, "run"), {"unet_lr": 0.05}
    own = find_start(folder, made, 12, False, resumed(source / "run-000001-state"))
    assert own is not None
    assert (own.step, own.kept) == (6, False)
    assert "the run's own checkpoint is at step 6, so it goes on from there and not from" in caplog.text
    newer = find_start(folder, made, 12, False, resumed(source / "run-000002-state"))
    assert newer is not None
    assert (newer.step, newer.kept) == (8, True)
    anew = find_start(folder, made, 12, True, resumed(source / "run-000001-state"))
    assert anew is not None
    assert anew.step == 4
    run(small(), out, resumed=resumed(source / "run-000002-state"))
    assert (out / "run.bin").read_bytes() == (source / "run.bin").read_bytes()


def test_what_was_made_differently_is_told_and_the_new_way_holds(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lora_trainer")
    out = tmp_path / "other"
    run(small(), out, resumed=resumed(source / "run-000002-state"), fingerprint={"unet_lr": 0.01})
    assert "made differently from here on: unet_lr was 0.05 and is now 0.01" in caplog.text
    assert status(out)["fingerprint"] == {"unet_lr": 0.01}
    run(small(optimizer="lion"), tmp_path / "third", resumed=resumed(source / "run-000002-state"), fingerprint={})
    assert "the optimizer of only begins anew: it is Lion and was AdamW" in caplog.text


def test_a_finished_run_may_be_made_longer_from_its_state(source: Path, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="is finished after 12 steps, and this preset asks for 16"):
        run(small(total_steps=16), source)
    with pytest.raises(Refusal, match=r"the state is at step 12, and this preset ends at step 12, counted from"):
        run(small(), tmp_path / "other", resumed=resumed(source / "run-state"))
    run(small(total_steps=16), source, resumed=resumed(source / "run-state"))
    run(small(total_steps=16), tmp_path / "whole")
    assert (source / "run.bin").read_bytes() == (tmp_path / "whole" / "run.bin").read_bytes()


def test_the_best_value_counts_only_where_its_file_is(tmp_path: Path) -> None:
    measured = Validation(Cadence(every_n_steps=3), {"psnr": True, "lpips": False}, best_by="psnr")
    source = tmp_path / "source"
    run(small(measured=(9.0, 1.0, 1.0, 1.0)), source, validation=measured, **STATES)
    best = (source / "run-best.bin").read_bytes()
    out = tmp_path / "other"
    state = resumed(source / "run-000001-state")
    run(small(measured=(9.0, 1.0, 3.0, 2.0)), out, resumed=state, validation=measured, save=Cadence(every_n_steps=9))
    assert (out / "run-best.bin").read_bytes() == (out / "run-step00000009.bin").read_bytes() != best


def test_a_state_that_is_kept_in_the_step_of_a_validation_knows_its_result(tmp_path: Path) -> None:
    measured = Validation(Cadence(every_n_steps=3), {"psnr": True, "lpips": False})
    keep = Keep(states=True)
    steps = Cadence(every_n_steps=3)
    run(small(measured=(1.0, 2.0, 3.0, 4.0)), tmp_path, validation=measured, save=steps, keep=keep, checkpoint=NEVER)
    found = read_state(tmp_path / "run-step00000006-state")
    assert found is not None
    assert found.load()["best"]["found"]["psnr"] == [2.0, 6]
