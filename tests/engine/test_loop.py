"""A run of a small trainer from its start to each of its ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lora_trainer.engine.cadence import NEVER, Cadence
from lora_trainer.engine.checkpoints import CheckpointFolder
from lora_trainer.engine.kept_files import Keep
from lora_trainer.engine.phase import Batch, Losses, Phase
from lora_trainer.engine.resume import AlreadyFinished, find_start
from lora_trainer.engine.run_folder import RunFolder
from lora_trainer.engine.signals import Stopped, StopRequest
from lora_trainer.engine.step import NonFiniteError
from lora_trainer.engine.trackers import Trackers
from lora_trainer.engine.validation import Validation
from lora_trainer.errors import Refusal
from tests.engine.small_run import Small, loss, rows, run, small, status


@dataclass
class Recorder:
    """What accelerate calls a tracker."""

    steps: list[int] = field(default_factory=list)

    def log(self, values: dict[str, float], step: int) -> None:
        self.steps.append(step)


def test_a_run_logs_saves_and_cleans_up(tmp_path: Path) -> None:
    tracker = Recorder()
    trainer = small()
    result = run(
        trainer,
        tmp_path,
        save=Cadence(1, 5),
        preview=Cadence(every_n_epochs=2),
        track=Trackers([tracker]),
    )
    assert result == tmp_path / "run.bin"
    assert sorted(path.name for path in tmp_path.glob("*.bin")) == [
        "run-000001.bin", "run-000002.bin", "run-step00000005.bin", "run-step00000010.bin", "run.bin",
    ]  # fmt: skip
    assert trainer.previews == ["000000", "e000002", "000012"]
    assert [(row["step"], row["epoch"]) for row in rows(tmp_path)] == [(2, 1), (4, 1), (6, 2), (8, 2), (10, 3), (12, 3)]
    assert tracker.steps == [2, 4, 6, 8, 10, 12]
    assert rows(tmp_path)[-1]["loss"] < rows(tmp_path)[0]["loss"]
    assert rows(tmp_path)[0]["lr/layer"] == 0.05
    assert (status(tmp_path)["state"], status(tmp_path)["step"]) == ("finished", 12)
    assert not (tmp_path / "checkpoints").exists()


def test_previews_can_begin_with_the_first_one_that_is_due(tmp_path: Path) -> None:
    trainer = small()
    run(trainer, tmp_path, preview=Cadence(every_n_steps=5), preview_first=False)
    assert trainer.previews == ["000005", "000010", "000012"]


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
@pytest.mark.parametrize("moment", [2, 3, 7])
def test_a_broken_off_run_goes_on_to_the_same_bytes(tmp_path: Path, moment: int, optimizer: str) -> None:
    run(small(optimizer=optimizer), tmp_path / "whole")

    def break_off(step: int) -> None:
        if step == moment:
            raise OSError("the power went out")

    with pytest.raises(OSError, match="power"):
        run(small(optimizer=optimizer, after=break_off), tmp_path / "parted")
    assert status(tmp_path / "parted")["state"] == "failed"
    run(small(optimizer=optimizer), tmp_path / "parted")
    assert (tmp_path / "parted" / "run.bin").read_bytes() == (tmp_path / "whole" / "run.bin").read_bytes()
    kept = ("step", "loss", "grad_norm", "lr/layer")
    parted, whole = ([[row[key] for key in kept] for row in rows(tmp_path / name)] for name in ("parted", "whole"))
    assert parted == whole


def test_a_stop_request_is_answered_after_the_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stop = StopRequest()

    def ask(step: int) -> None:
        if step == 4:
            stop.signal = 15

    with pytest.raises(Stopped) as stopped:
        run(small(after=ask), tmp_path, stop)
    assert stopped.value.exit_status == 143
    found = CheckpointFolder(tmp_path / "checkpoints" / "run").newest()
    assert found is not None
    assert found.step == 5
    assert (status(tmp_path)["state"], status(tmp_path)["exit_status"]) == ("stopped", 143)
    assert status(tmp_path)["continue_with"].endswith("--preset mine.json")


def test_nan_ends_the_run_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError) as error:
        run(small(broken=7), tmp_path)
    said = str(error.value)
    assert "step 8: the loss is nan" in said
    assert "the last good checkpoint is step 6" in said
    assert "Pictures of the step: row 2 of 7." in said
    assert status(tmp_path)["state"] == "failed"
    assert not (tmp_path / "run.bin").exists()


def test_weights_that_overflow_are_not_saved(tmp_path: Path) -> None:
    trainer = small()

    def overflow(step: int) -> None:
        if step == 11:
            with torch.no_grad():
                trainer.layer.bias.fill_(float("inf"))

    trainer.after = overflow
    with pytest.raises(NonFiniteError, match="the weights of only hold NaN or Inf"):
        run(trainer, tmp_path)
    assert not (tmp_path / "run.bin").exists()


def stopped_run(out: Path) -> None:
    stop = StopRequest()

    def ask(step: int) -> None:
        stop.signal = 2

    with pytest.raises(Stopped):
        run(small(after=ask), out, stop)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    stopped_run(tmp_path)
    folder = RunFolder(tmp_path, "run")
    with pytest.raises(Refusal, match=r"holds a checkpoint of run that was made differently: unet_lr was 0\.05 and is"):
        find_start(folder, {"unet_lr": 0.01}, 12, restart=False)
    assert find_start(folder, {"unet_lr": 0.01}, 12, restart=True) is None
    longer = find_start(folder, {"unet_lr": 0.05}, 50, restart=False)
    assert longer is not None
    with pytest.raises(Refusal, match="is at step 1, beyond this preset's 0 steps"):
        find_start(folder, {"unet_lr": 0.05}, 0, restart=False)


def test_a_finished_run_says_so(tmp_path: Path) -> None:
    run(small(), tmp_path)
    folder = RunFolder(tmp_path, "run")
    with pytest.raises(AlreadyFinished, match=r"this run is finished: .*run\.bin; --restart trains it anew"):
        find_start(folder, {"unet_lr": 0.05}, 12, restart=False)
    with pytest.raises(Refusal, match="is finished after 12 steps, and this preset asks for 16"):
        find_start(folder, {"unet_lr": 0.05}, 16, restart=False)
    (tmp_path / "run.bin").unlink()
    assert find_start(folder, {"unet_lr": 0.05}, 12, restart=False) is None


def test_other_weights_than_the_checkpoints_are_refused(tmp_path: Path) -> None:
    stopped_run(tmp_path)
    other = small()
    first = other.phases[0]
    renamed = {f"new {name}": weight for name, weight in first.weights.items()}
    other.phases = [Phase("only", first.module, renamed, first.optimizer, loss, first.schedule)]
    with pytest.raises(Refusal, match="the checkpoint holds other weights than this model trains"):
        run(other, tmp_path)


def test_a_preview_that_fails_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = small()

    def fail(folder: Path, label: str, done: int) -> Iterable[Path]:
        raise torch.OutOfMemoryError("no memory for pictures")

    monkeypatch.setattr(trainer, "preview", fail)
    assert run(trainer, tmp_path, preview=Cadence(every_n_steps=4)) == tmp_path / "run.bin"


def test_an_export_that_finds_no_room_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = small()

    def fail(stem: Path, done: int) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer, "export", fail)
    with pytest.raises(Refusal, match=r"cannot write run-000001 \(\d+\.\d\d GiB are free\).*No space.* Make room"):
        run(trainer, tmp_path, save=Cadence(every_n_epochs=1), checkpoint=NEVER)
    assert status(tmp_path)["state"] == "failed"


def test_a_checkpoint_that_finds_no_room_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: CheckpointFolder, *arguments: Any) -> Path:
        raise RuntimeError("unexpected pos 64 vs 0")  # what torch.save says of a full disk

    monkeypatch.setattr(CheckpointFolder, "save", fail)
    assert run(small(), tmp_path) == tmp_path / "run.bin"
    assert status(tmp_path)["state"] == "finished"


MEASURED = Validation(Cadence(every_n_steps=3), {"psnr": True, "lpips": False}, best_by="psnr")


def test_a_validation_is_logged_and_the_best_file_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run(small(measured=(20.0, 22.5, 21.0, 22.0)), tmp_path, validation=MEASURED, save=Cadence(every_n_steps=6))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {row["step"]: row["val/psnr"] for row in rows if "val/psnr" in row}
    assert found == {3: 20.0, 6: 22.5, 9: 21.0, 12: 22.0}
    assert (tmp_path / "run-best.bin").read_bytes() == (tmp_path / "run-step00000006.bin").read_bytes()
    assert "validation at step 12: psnr 22.0000 (best 22.5000 at step 6), lpips -22.0000 (best -22.5000 at step 6)" in (
        caplog.text
    )


def test_a_resumed_run_knows_the_best_value_and_keeps_its_file(tmp_path: Path) -> None:
    stop = StopRequest()

    def hear(step: int) -> None:
        stop.signal = 15 if step == 7 else None

    with pytest.raises(Stopped):
        run(small(measured=(20.0, 22.5, 21.0, 22.0), after=hear), tmp_path, stop, validation=MEASURED)
    best = (tmp_path / "run-best.bin").read_bytes()
    run(small(measured=(0.0, 0.0, 21.0, 22.0)), tmp_path, validation=MEASURED)
    assert (tmp_path / "run-best.bin").read_bytes() == best


def test_only_the_last_files_are_kept_and_no_others_are_touched(tmp_path: Path) -> None:
    strange = ("run-best.bin", "run-step00000001.txt", "running-step00000001.bin", "run.bin")
    for name in strange:
        (tmp_path / name).write_text("mine", encoding="utf-8")
    run(small(), tmp_path, save=Cadence(every_n_steps=2), keep=Keep(step_files=2))
    assert {file.name for file in tmp_path.glob("*.*")} - {"status.json", "metrics.jsonl"} == {
        "run-step00000008.bin", "run-step00000010.bin", *strange,
    }  # fmt: skip


def test_what_a_module_remembers_beside_its_weights_survives_a_stop(tmp_path: Path) -> None:
    def counted(after: Callable[[int], None] = lambda step: None) -> Small:
        trainer = small(after=after)
        trainer.layer.register_buffer("seen", torch.zeros(()))

        def count(module: nn.Module, inputs: Any, output: Any) -> None:
            module.seen += 1

        trainer.layer.register_forward_hook(count)
        return trainer

    stop = StopRequest()

    def hear(step: int) -> None:
        stop.signal = 15 if step == 4 else None

    with pytest.raises(Stopped):
        run(counted(hear), tmp_path, stop)
    again = counted()
    run(again, tmp_path)
    assert float(again.layer.seen) == 12


def test_a_nan_names_its_term(tmp_path: Path) -> None:
    def with_terms(module: nn.Module, batch: Batch) -> Losses:
        whole = loss(module, batch).per_sample
        return Losses(whole, {"l1": whole.detach().nan_to_num(), "hsluv_hue": whole.detach() * 0.5})

    trainer = small(broken=4)
    first = trainer.phases[0]
    trainer.phases = [Phase("only", first.module, first.weights, first.optimizer, with_terms, first.schedule)]
    with pytest.raises(NonFiniteError, match=r"step 5: the loss is nan and the gradient norm nan by hsluv_hue, so the"):
        run(trainer, tmp_path)


def test_a_step_without_the_first_phase_is_logged(tmp_path: Path) -> None:
    trainer = small()
    first = trainer.phases[0]
    trainer.phases = [
        Phase("G", first.module, first.weights, first.optimizer, loss, first.schedule, due=lambda step: step >= 6)
    ]
    run(trainer, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert ["loss" in row for row in rows] == [False] * 3 + [True] * 3
