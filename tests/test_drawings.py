"""The small model that lies in presets/drawings: its size, its papers, and that it does what its words say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lora_trainer.config.reader import load_preset
from lora_trainer.losses.image_quality import psnr
from lora_trainer.models.base_model import BaseModel, load_base_model
from lora_trainer.models.detect import detect
from lora_trainer.trainers.diffusion.sample_prompts import read_prompts
from lora_trainer.trainers.diffusion.sampling import Drawing, Sampler
from lora_trainer.trainers.lora.job import inspect_lora

ROOT = Path(__file__).parents[1]
DRAWINGS = ROOT / "presets" / "drawings"
Draw = Callable[[str], "np.ndarray[Any, Any]"]


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load_base_model(detect(DRAWINGS / "base"))


@pytest.fixture(scope="module")
def draw(base: BaseModel) -> Draw:
    """The picture of a prompt, (128, 128, 3) between 0 and 1."""
    sampler = Sampler("euler", base.prediction == "v_prediction", base.zero_terminal_snr)
    drawing = Drawing(base.kind, base.unet, base.vae, base.text_encoders, base.tokenizers, 1, sampler)

    def picture(words: str) -> np.ndarray[Any, Any]:
        (prompt,) = read_prompts(f"{words} --w 128 --h 128 --d 1 --s 12 --l 4", 1)
        return np.asarray(drawing.draw(prompt), dtype=np.float64) / 255

    return picture


def test_it_is_a_small_sdxl_in_half_precision() -> None:
    files = [path for path in (DRAWINGS / "base").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25_000_000
    assert detect(DRAWINGS / "base").kind == "sdxl"
    model = load_base_model(detect(DRAWINGS / "base"), dtype=torch.float16, vae_dtype=torch.float16)
    for part in (model.unet, model.vae, *model.text_encoders):
        assert all(bool(weight.isfinite().all()) for weight in part.parameters())


def test_the_card_names_whose_drawings_it_has_learnt() -> None:
    card = (DRAWINGS / "README.md").read_text(encoding="utf-8")
    for words in ("Google LLC", "Apache License", "Microsoft Corporation", "MIT License", "Miles Johnson", "Unicode"):
        assert words in card
    things = (ROOT / "presets" / "finetune" / "drawings_things.txt").read_text(encoding="utf-8").splitlines()
    assert f"{len(things)} things" in card


def test_the_vae_gives_a_style_back_that_the_base_has_not_learnt(base: BaseModel) -> None:
    for folder in ("outline/1_outline", "goblin/1_goblin"):
        for path in sorted((DRAWINGS / folder).glob("*.png"))[:4]:
            with Image.open(path) as image:
                pixels = torch.from_numpy(np.array(image.convert("RGB").resize((128, 128))))
            picture = pixels.permute(2, 0, 1)[None].float() / 127.5 - 1
            with torch.no_grad():
                back = base.vae.decode(base.vae.encode(picture).latent_dist.mean).sample
            assert float(psnr((back.clamp(-1, 1) + 1) / 2, (picture + 1) / 2)) > 22, path


def test_a_style_is_what_its_words_say(draw: Draw) -> None:
    def colourful(picture: np.ndarray[Any, Any]) -> float:
        return float((picture.max(axis=2) - picture.min(axis=2)).mean())

    assert colourful(draw("tulip, flat style")) > 3 * colourful(draw("tulip, sketch style"))


def test_a_background_has_the_colour_that_is_named(draw: Draw) -> None:
    corner, white = (
        draw(f"panda, glossy style{words}")[:8, :8].mean(axis=(0, 1)) for words in (", yellow background", "")
    )
    assert corner[0] > 0.7 and corner[1] > 0.5 and corner[2] < 0.6
    assert white.min() > 0.75


def test_one_prompt_is_one_picture_and_another_thing_another(draw: Draw) -> None:
    panda, car = draw("panda, glossy style"), draw("car, glossy style")
    assert np.array_equal(panda, draw("panda, glossy style"))
    assert np.abs(panda - car).mean() > 0.05


@pytest.mark.parametrize(("name", "pictures"), [("demo", 19), ("lora/example", 12)])
def test_the_presets_train_on_it(name: str, pictures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = ROOT / "presets" / f"{name}.json"
    job = inspect_lora(load_preset(path), world=1, seed=1)
    assert len(job.samples) == pictures
    assert all(sample.path.with_suffix(".txt").is_file() for sample in job.samples)
    pdxl = json.loads((ROOT / "presets" / "pdxl.json").read_text(encoding="utf-8"))
    same = ("optimizer", "network_dim", "network_alpha", "debiased_estimation_loss", "shuffle_caption")
    written = json.loads(path.read_text(encoding="utf-8"))
    assert {key: written[key] for key in same} == {key: pdxl[key] for key in same}
