"""train_batch_size auto: what fits by the plan, the same when the run goes on, anew when it begins anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from lora_trainer.config.reader import load_preset
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.models.safetensors_header import read_header
from lora_trainer.trainers.diffusion.fit import USABLE
from lora_trainer.trainers.diffusion.memory import GIB, Choices, Needs
from lora_trainer.trainers.lora import batch_size, planned_batch
from lora_trainer.trainers.lora.job import inspect_lora
from lora_trainer.trainers.lora.plan import needed
from lora_trainer.trainers.lora.planned_batch import MOST, largest_that_fits
from lora_trainer.trainers.lora.trainer import build_lora

Write = Callable[..., Path]
Rows = Callable[[], list[dict[str, Any]]]


class Numbers:
    """6 GiB of models, and 4 GiB of activations a picture."""

    def needs(self, choices: Choices) -> Needs:
        return Needs({}, round((6 + 4 * choices.share) * GIB))


@pytest.mark.parametrize(("room", "size"), [(8, 1), (12, 1), (15, 2), (24, 4), (38, 7), (80, MOST)])
def test_the_plan_says_how_many_fit(room: int, size: int) -> None:
    assert largest_that_fits(cast(Any, Numbers()), Choices([]), room * GIB) == (size, (6 + 4 * size) * GIB)


def test_what_cannot_be_planned_is_one_picture() -> None:
    class Unmeasured:
        def needs(self, choices: Choices) -> Needs:
            raise NotImplementedError

    assert largest_that_fits(cast(Any, Unmeasured()), Choices([]), 80 * GIB) == (1, 0)


def room_for(preset: Path, size: int) -> int:
    """Bytes that this many pictures of this preset need, and a little more."""
    loaded = batch_size._with(load_preset(preset), 1)
    trainer = build_lora(inspect_lora(loaded, world=1, seed=1), Processes(), Precision("no", "cpu"), True)
    memory, choices = needed(trainer)
    return round(memory.needs(Choices(choices.owners, choices.rung, share=size + 0.5)).peak / USABLE)


def test_a_run_trains_what_fits_and_goes_on_with_it(
    write_preset: Write, train: Callable[..., int], out: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = write_preset(train_batch_size="auto", epoch=2, gradient_accumulation_steps=2, max_train_steps=2)
    room = [room_for(preset, 3)]
    monkeypatch.setattr(planned_batch, "room_bytes", lambda device: room[0])
    assert train(preset) == 0
    assert read_header(out / "tiny.safetensors").metadata["ss_batch_size_per_device"] == "3"
    status = json.loads((out / "status.json").read_text(encoding="utf-8"))
    assert status["fingerprint"]["pictures per step"] == 6

    room[0] *= 100
    assert train(preset) == 0  # finished, as it was made with three
    assert train(preset, "--restart") == 0
    assert read_header(out / "tiny.safetensors").metadata["ss_batch_size_per_device"] == str(MOST)


def test_another_number_of_passes_is_told(
    write_preset: Write, train: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planned_batch, "room_bytes", lambda device: 0)
    assert train(write_preset(train_batch_size="auto", max_train_steps=1)) == 0
    assert "train_batch_size auto: 1 (" in capsys.readouterr().out
    changed = write_preset(train_batch_size="auto", max_train_steps=1, gradient_accumulation_steps=2)
    assert train(changed) == 2
    assert "pictures per step was 1 and is now 2" in capsys.readouterr().err


@pytest.mark.parametrize("written", [0, -1, "much", 1.5, True])
def test_what_is_neither_a_number_nor_auto(
    write_preset: Write, train: Callable[..., int], capsys: pytest.CaptureFixture[str], written: object
) -> None:
    assert train(write_preset(train_batch_size=written)) == 2
    assert "; write a whole number from 1 on, or auto" in capsys.readouterr().err
