"""Previews in a training and beside it: their files, what is written in them, and that they change nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lora_trainer.models.tiny_models import tiny_base
from lora_trainer.trainers.diffusion.previews import Previews, parameters
from lora_trainer.trainers.diffusion.sample_prompts import SamplePrompt
from lora_trainer.trainers.diffusion.sampling import Drawing, Sampler

Rows = Callable[[], list[dict[str, Any]]]
Train = Callable[..., int]
WritePreset = Callable[..., Path]

CAT = SamplePrompt("a cat", width_px=64, height_px=64, seed=5, steps=1, guidance=1.0)
RUN = {"unet_lr": 1e-3}


@pytest.fixture(scope="module")
def drawing() -> Drawing:
    base = tiny_base("sd15")
    models = [model.float() for model in (base.unet, base.vae, *base.text_encoders)]
    return Drawing(base.kind, models[0], models[1], models[2:], base.tokenizers, 1, Sampler("k_euler_a", False, False))


def columns(sheet: Path) -> int:
    """How many pictures stand side by side, each 64 px wide with a caption that may be wider."""
    with Image.open(sheet) as image:
        pixels = np.array(image)[36:100]
    inked = (pixels != 255).any((0, 2))
    return int((inked[1:] & ~inked[:-1]).sum())


def test_a_training_with_previews_is_the_one_without(
    write_preset: WritePreset, train: Train, out: Path, rows: Rows, tmp_path: Path
) -> None:
    prompts = "a cat, in a garden --n blurry --w 64 --h 72 --s 2 --l 3\nrocket --ss lms --w 64 --h 64 --d 9 --s 2"
    keys = {"epoch": 3, "gradient_checkpointing": True, "network_dropout": 0.3, "rank_dropout": 0.2, "flip_aug": True}
    preset = write_preset("sd15", **keys, sample_prompts=prompts, sample_every_n_steps=3, log_with="tensorboard")
    assert train(preset) == 0
    drawn = rows()
    names = [
        f"tiny_{step:06d}_{rest}" for step in (0, 3, 6, 9, len(drawn)) for rest in ("00_7.png", "01_9.png")
    ]  # fmt: skip
    sheets = ["tiny_00_over_time.png", "tiny_01_over_time.png"]
    assert sorted(file.name for file in (out / "sample").iterdir()) == sorted([*names, *sheets])
    with Image.open(out / "sample" / "tiny_000003_00_7.png") as image:
        assert image.size == (64, 72)
        assert image.info["parameters"] == (
            "a cat, in a garden\nNegative prompt: blurry\nSteps: 2, Sampler: Euler a, CFG scale: 3, Seed: 7, "
            "Size: 64x72, Model: sd15, Training step: 3"
        )
    with Image.open(out / "sample" / "tiny_000003_01_9.png") as image:
        assert "Sampler: LMS" in image.info["parameters"]
    assert columns(out / "sample" / sheets[0]) == 5
    recorded = EventAccumulator(str(out / "logs" / "tiny"), size_guidance={"images": 0}).Reload()
    assert [each.step for each in recorded.Images("sample/01")] == [0, 3, 6, 9, len(drawn)]
    with_previews = (out / "tiny.safetensors").read_bytes()

    preset = write_preset("sd15", **keys, output_dir=str(tmp_path / "without"))
    assert train(preset) == 0
    assert (tmp_path / "without" / "tiny.safetensors").read_bytes() == with_previews
    assert not (tmp_path / "without" / "sample").exists()


def test_a_resumed_run_draws_the_same_files_and_leaves_later_ones_out(drawing: Drawing, tmp_path: Path) -> None:
    previews = Previews(tmp_path, "my", [CAT], "base", 4, RUN)
    sheet = tmp_path / "my_00_over_time.png"
    before = {}
    for label, done in (("000000", 0), ("e000001", 4), ("000006", 6)):
        (shown,) = previews.draw(drawing, label, done)
        assert (shown.name, shown.path, shown.caption) == ("sample/00", tmp_path / f"my_{label}_00_5.png", "a cat")
        before[label] = (shown.path.read_bytes(), sheet.read_bytes())
    assert columns(sheet) == 3
    (again,) = previews.draw(drawing, "e000001", 4)
    assert (again.path.read_bytes(), sheet.read_bytes()) == before["e000001"]
    assert columns(sheet) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"prompts": [replace(CAT, text="a dog")]},
        {"prompts": [replace(CAT, negative="blurry")]},
        {"prompts": [replace(CAT, seed=6)]},
        {"run": {"unet_lr": 2e-3}},
        {"name": "my_00"},
    ],
)
def test_pictures_of_another_run_or_prompt_are_not_on_the_sheet(
    drawing: Drawing, tmp_path: Path, changed: dict[str, Any]
) -> None:
    first = Previews(tmp_path, "my", [CAT], "base", 4, RUN)
    first.draw(drawing, "000000", 0)
    (tmp_path / "my_000001_00_5.png").write_text("no picture", encoding="utf-8")
    other = replace(first, **changed)
    other.draw(drawing, "000002", 2)
    assert columns(tmp_path / f"{other.name}_00_over_time.png") == 1


def test_what_is_written_in_a_picture_can_be_read_back(drawing: Drawing, tmp_path: Path) -> None:
    prompt = replace(CAT, text="eine Katze, 猫", negative="unscharf", guidance=7.5)
    (shown,) = Previews(tmp_path, "my", [prompt], 'a "model", v1', 4, RUN).draw(drawing, "000012", 12)
    with Image.open(shown.path) as image:
        assert image.info["parameters"] == parameters(prompt, "euler_a", 'a "model", v1', 12)
    assert parameters(prompt, "k_euler_a", 'a "model", v1', 12) == (
        "eine Katze, 猫\nNegative prompt: unscharf\nSteps: 1, Sampler: Euler a, CFG scale: 7.5, Seed: 5, Size: 64x64, "
        'Model: "a \\"model\\", v1", Training step: 12'
    )
