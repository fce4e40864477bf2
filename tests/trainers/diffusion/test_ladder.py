"""gradient_checkpointing auto: the lowest rung that the plan and a trial step allow."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from lora_trainer.config.reader import load_preset
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.models.recomputation import RUNGS
from lora_trainer.trainers.diffusion import ladder
from lora_trainer.trainers.diffusion.ladder import first_rung, lowest_that_fits, room_bytes, rung_of
from lora_trainer.trainers.diffusion.memory import GIB, Choices, Needs
from lora_trainer.trainers.lora.job import inspect_lora
from lora_trainer.trainers.lora.plan import fit_lora
from lora_trainer.trainers.lora.trainer import LoraTrainer, build_lora
from lora_trainer.trainers.starts import STARTS

Write = Callable[..., Path]
PEAKS = {"nothing": 40, "geglu": 30, "feed_forward": 20, "everything": 10}


class Numbers:
    """Needs that are told."""

    def needs(self, choices: Choices) -> Needs:
        return Needs({}, PEAKS[choices.rung] * GIB)


@pytest.mark.parametrize(
    ("room", "rung"), [(48, "nothing"), (40, "geglu"), (24, "feed_forward"), (12, "everything"), (8, "everything")]
)
def test_the_plan_says_the_lowest_that_fits(room: int, rung: str) -> None:
    assert lowest_that_fits(cast(Any, Numbers()), Choices([]), room * GIB) == (rung, PEAKS[rung] * GIB)


def test_without_a_plan_it_is_the_highest() -> None:
    class Unknown:
        def needs(self, choices: Choices) -> Needs:
            raise RuntimeError("these layers look at numbers")

    assert lowest_that_fits(cast(Any, Unknown()), Choices([]), 80 * GIB) == ("everything", 0)


def test_the_computers_memory_is_known() -> None:
    assert GIB / 4 < room_bytes(torch.device("cpu")) < 2**50


def built(preset: Path) -> LoraTrainer:
    job = inspect_lora(load_preset(preset), world=1, seed=1)
    return build_lora(job, Processes(), Precision("no", "cpu"), True)


@pytest.mark.parametrize(("fails", "rung", "word"), [(0, "nothing", "false"), (2, "feed_forward", "feed_forward")])
def test_auto_climbs_while_a_trial_step_does_not_fit(
    write_preset: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: int, rung: str,
    word: str,
) -> None:  # fmt: skip
    tried: list[str] = []
    trainer = built(write_preset("sdxl", gradient_checkpointing="auto"))

    def holds(*_: object) -> bool:
        tried.append(rung_of(trainer.base.unet))
        return len(tried) > fails

    monkeypatch.setattr(ladder, "_holds", holds)
    monkeypatch.setattr(logging.getLogger("lora_trainer"), "propagate", True)
    with caplog.at_level("INFO"):
        fit_lora(trainer, Processes(), Precision("no", "cpu"))
    assert rung_of(trainer.base.unet) == rung
    assert tried == list(RUNGS[: fails + 1])
    assert f"gradient_checkpointing auto: {word} (" in caplog.text


def test_a_trial_step_leaves_everything_as_it_was(write_preset: Write) -> None:
    trainer = built(write_preset("sdxl"))
    phase = trainer.phases[0]
    micro = trainer.data(trainer.largest_step)[0]
    before = {name: weight.clone() for name, weight in phase.weights.items()}
    ladder._pass(phase, micro, torch.device("cpu"), Precision("no", "cpu"))
    assert all(weight.grad is None for weight in phase.weights.values())
    assert all(torch.equal(weight, before[name]) for name, weight in phase.weights.items())
    assert not any(phase.optimizer.state.values())


def test_a_pass_that_is_too_large_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large() -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert not ladder._fits(too_large)
    assert ladder._fits(lambda: None)


def test_another_preset_is_left_alone(write_preset: Write) -> None:
    trainer = built(write_preset("sdxl", gradient_checkpointing="geglu"))
    fit_lora(trainer, Processes(), Precision("no", "cpu"))
    assert rung_of(trainer.base.unet) == "geglu"


@pytest.mark.parametrize(
    ("value", "rung"),
    [
        (True, "everything"),
        (False, "nothing"),
        ("auto", "nothing"),
        ("geglu", "geglu"),
        ("feed_forward", "feed_forward"),
    ],
)
def test_the_keys_values(write_preset: Write, value: bool | str, rung: str) -> None:
    preset: Any = load_preset(write_preset("sdxl", gradient_checkpointing=value)).preset
    assert preset.gradient_checkpointing == value
    assert first_rung(preset.gradient_checkpointing) == rung


def test_an_error_names_the_rungs_that_are_left(write_preset: Write) -> None:
    advice = {
        value: STARTS["lora"].advice(load_preset(write_preset("sdxl", gradient_checkpointing=value)).preset)
        for value in (False, "feed_forward", True, "auto")
    }
    start = "Try in this order: "
    assert advice[False].startswith(f"{start}gradient_checkpointing geglu, then feed_forward, then true, cache_latents")
    assert advice["feed_forward"].startswith(f"{start}gradient_checkpointing true, cache_latents true, ")
    assert advice[True] == advice["auto"]
    assert advice[True].startswith(f"{start}cache_latents true, ")
