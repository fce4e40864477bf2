"""The sentences of the page: whether it worked, and what to do next."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lora_trainer.engine.run_facts import Material, RunFacts
from lora_trainer.report.curves import Curve
from lora_trainer.report.next_steps import SHORTENED, next_steps
from lora_trainer.report.verdict import ADVERSARIAL, figures_of, number, sentences_of, trend, without_folders

STATUS: dict[str, Any] = {"state": "finished", "step": 600, "total_steps": 600}
USES = (("A1111", "Put {file} there, write <lora:{stem}:1>"),)


def facts(**keys: Any) -> RunFacts:
    return RunFacts("run", "lora", Material("A LoRA", how_to_use=USES), **keys)


def curve(name: str, *values: float) -> Curve:
    return Curve(name, tuple(10 * n for n in range(1, len(values) + 1)), values)


def test_the_figures_say_length_loss_and_the_best_of_validation() -> None:
    curves = {"loss": curve("loss", 2.0, 1.0), "val/PSNR": curve("val/PSNR", 20.0, 25.0, 24.0)}
    found = {each.name: (each.value, each.note) for each in figures_of(STATUS, curves, {"val/PSNR": True})}
    assert found == {
        "steps": ("600 of 600", ""),
        "loss at the end": ("1", "fell from 2, \N{MINUS SIGN}50%"),
        "validation PSNR": ("24", "best 25 at step 20; higher is better"),
    }
    assert figures_of({"step": 3, "total_steps": 12}, {}, {})[0].note == "25%"


def test_the_loss_at_the_end_is_not_a_single_value_of_many() -> None:
    loss = curve("loss", *([2.0] * 20), *([1.0] * 19), 0.1)
    (found,) = figures_of({}, {"loss": loss}, {})
    assert (found.value, found.note) == ("1", "fell from 2, \N{MINUS SIGN}50%")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((1.0, 1.01), "about as at the start (1)"),
        ((1.0, 1.5), "rose from 1, +50%"),
        ((0.0, 1.0), "rose from 0"),
        ((math.nan, 1.0), ""),
        ((-2.0, -3.0), "fell from \N{MINUS SIGN}2, \N{MINUS SIGN}50%"),
    ],
)
def test_the_trend_of_the_loss(values: tuple[float, ...], said: str) -> None:
    assert trend(curve("loss", *values)) == said


def test_losses_of_networks_that_contend_are_no_measure() -> None:
    names = ("loss", "grad_norm", "d/loss", "d/grad_norm")
    curves = {name: curve(name, 1.0, 2.0) for name in names}
    assert sentences_of(STATUS, curves) == [ADVERSARIAL]
    assert [each.note for each in figures_of(STATUS, curves, {}) if "loss" in each.name] == [""]


def test_nan_a_rising_loss_and_no_numbers_are_told() -> None:
    assert sentences_of(STATUS, {"loss": curve("loss", 1.0, math.nan, 2.0)}) == [
        "The loss rose: a lower learning rate may do better.",
        "Not finite (NaN or infinite), and gaps in the curves: 1 of 3 values of loss.",
    ]
    assert "No numbers were logged" in sentences_of(STATUS, {})[0]
    assert "killed" in sentences_of({"state": "running"}, {"loss": curve("loss", 1.0)})[0]


def test_a_finished_run_tells_how_its_file_is_used_by_its_last_part() -> None:
    found = next_steps({**STATUS, "result": "C:\\out\\my lora.safetensors"}, facts())
    assert found.rows == (("A1111", "Put my lora.safetensors there, write <lora:my lora:1>"),)
    assert next_steps({**STATUS, "result": "/out/x-{stem}.pth"}, facts()).rows[0][1].startswith("Put x-{stem}.pth")
    assert "in the folder" in next_steps({**STATUS, "result": "None"}, None).text


def test_a_stopped_run_gives_the_command_and_says_where_the_whole_one_is() -> None:
    plain = next_steps({"state": "stopped", "continue_with": "accelerate launch --preset presets/x.json"}, None)
    assert (plain.command, SHORTENED in plain.text) == ("accelerate launch --preset presets/x.json", False)
    whole = next_steps({"state": "stopped", "continue_with": "run --preset /home/anna/x.json"}, None)
    assert (whole.command, SHORTENED in whole.text) == ("run --preset .../x.json", True)


@pytest.mark.parametrize(
    ("message", "cure"),
    [
        ("OutOfMemoryError: CUDA out of memory", "gradient_checkpointing true. The same command"),
        ("step 3: the loss is nan, so the weights were not touched", "a lower learning rate"),
        ("OSError: [Errno 28] No space left on device", "make room"),
        ("KeyError: 'x'", "The lines of the log above the error"),
    ],
)
def test_a_failed_run_tells_cause_and_cure(message: str, cure: str) -> None:
    found = next_steps({"state": "failed", "message": message}, facts(memory_advice="gradient_checkpointing true"))
    assert found.text.startswith(message)
    assert cure in found.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("OSError: '/home/anna m/out/x.png'", "OSError: '.../x.png'"),
        ('--set "output_dir=/home/my runs/x" lr=1/2', '--set "output_dir=.../x" lr=1/2'),
        ("C:\\Users\\anna\\x.json presets/a.json", ".../x.json presets/a.json"),
        ("https://huggingface.co/a/b", "https://huggingface.co/a/b"),
    ],
)
def test_of_folders_only_the_last_part_is_shown(text: str, shown: str) -> None:
    assert without_folders(text) == shown


def test_numbers_have_four_digits() -> None:
    shown = [number(value) for value in (0.123456, 12345.6, 1e-5, math.nan, 600)]
    assert shown == ["0.1235", "12,346", "1e-05", "nan", "600"]
