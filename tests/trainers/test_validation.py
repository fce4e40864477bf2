"""Held-out pictures: what is measured, which file is kept as the best, and when a run ends early."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.config.reader import load_preset
from lora_trainer.data.held_out import hold_out
from lora_trainer.data.survey import Sample
from lora_trainer.errors import Refusal
from lora_trainer.trainers.lora.job import inspect_lora
from tests.models.standard_lora import read_layers

Train = Callable[..., int]
WritePreset = Callable[..., Path]
Rows = Callable[[], list[dict[str, Any]]]


def losses(out: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").open(encoding="utf-8")]
    return {row["step"]: row["val/loss"] for row in rows if "val/loss" in row}


def test_the_split_follows_from_seed_and_content() -> None:
    samples = [Sample(str(i), Path(str(i)), "f", 1, "", (8, 8), f"digest {i}", None) for i in range(40)]  # type: ignore[arg-type]
    trained, held_out = hold_out(samples, 0.25, seed=3)
    assert (len(trained), len(held_out)) == (30, 10)
    assert sorted(trained + held_out, key=lambda each: int(each.name)) == samples
    again = hold_out(samples[::-1], 0.25, seed=3)
    assert {each.name for each in again[1]} == {each.name for each in held_out}
    assert {each.name for each in hold_out(samples, 0.25, seed=4)[1]} != {each.name for each in held_out}
    more = hold_out([*samples, *samples[:5]], 0.25, seed=3)  # copies share the lot of their original
    assert {each.name for each in more[1]} == {each.name for each in held_out}
    with pytest.raises(Refusal, match="leaves none to train"):
        hold_out(samples[:1], 0.5, seed=3)


def test_held_out_pictures_are_measured_alike_and_not_trained(
    write_preset: WritePreset, train: Train, out: Path, rows: Rows
) -> None:
    keys = {"validation_split": 0.25, "validate_every_n_steps": 2, "max_train_steps": 5, "seed": 3}
    preset = write_preset("sd15", **keys)
    job = inspect_lora(load_preset(preset), 1, 3)
    assert (len(job.samples), len(job.held_out)) == (3, 1)
    assert not {each.name for each in job.samples} & {each.name for each in job.held_out}
    assert train(preset) == 0
    first = losses(out)
    assert list(first) == [2, 4, 5]
    assert all(0.1 < loss < 10 for loss in first.values())
    row = next(row for row in rows() if "val/loss" in row)
    by_timestep = [row[f"val/loss_t{timestep}"] for timestep in (100, 300, 500, 700, 900)]
    assert row["val/loss"] == pytest.approx(sum(by_timestep) / 5)
    # without a learning rate nothing changes but the pictures' lots: the numbers stay the same at every moment
    assert train(preset, "--restart", "--set", "unet_lr=1e-12", "text_encoder_lr=1e-12") == 0
    still = list(losses(out).values())
    assert still == pytest.approx([still[0]] * 3, abs=1e-6)
    assert still[0] != pytest.approx(first[5], abs=1e-6)


def test_a_folder_is_held_out_whole(write_preset: WritePreset, train: Train, out: Path, photos: Path) -> None:
    folder = photos.parent / "held out" / "3_cat"
    folder.mkdir(parents=True)
    picture = next(photos.rglob("*.png"), None) or next(photos.rglob("*.jpg"))
    shutil.copy(picture, folder)
    preset = write_preset("sdxl", validation_data_dir=str(folder.parent), max_train_steps=2, validate_every_n_epochs=0)
    job = inspect_lora(load_preset(preset), 1, 7)
    assert ([each.name for each in job.held_out], len(job.samples)) == ([f"3_cat/{picture.name}"], 4)
    assert train(preset) == 0
    assert list(losses(out)) == [2]
    with pytest.raises(Refusal, match="check validation_data_dir"):
        inspect_lora(load_preset(preset, ["validation_data_dir=nowhere"]), 1, 7)


def test_the_best_file_is_kept_and_a_hopeless_run_ends(
    write_preset: WritePreset, train: Train, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"save_best": True, "early_stopping_patience": 2, "validation_split": 0.3, "validate_every_n_steps": 1}
    preset = write_preset("sd15", max_train_steps=30, unet_lr=0.3, text_encoder_lr=0.3, **keys)  # it must get worse
    assert train(preset) == 0
    found = losses(out)
    best = min(found, key=lambda step: found[step])
    assert len(found) == best + 2 < 30
    status = json.loads((out / "status.json").read_text(encoding="utf-8"))
    assert (status["state"], status["step"]) == ("finished", best + 2)
    kept, last = (read_layers(out / f"tiny{end}.safetensors") for end in ("-best", ""))
    assert kept.metadata["ss_steps"] == str(best)
    assert last.metadata["ss_steps"] == str(best + 2)
    assert any(not torch.equal(kept.layers[n][k], last.layers[n][k]) for n in kept.layers for k in kept.layers[n])
    capsys.readouterr()
    assert train(preset) == 0
    assert "this run is finished" in capsys.readouterr().out
