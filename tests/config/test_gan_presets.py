"""The shipped GAN presets load, say where they come from, and are the lines of the published tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from lora_trainer.config import reader
from lora_trainer.config.gan import GanPreset
from lora_trainer.config.gan_gamma import suggested_gamma
from lora_trainer.config.gan_launch import launch_problems
from lora_trainer.config.gan_rules import GAN_RULES
from lora_trainer.config.gan_sections import unfold_gan
from lora_trainer.config.reader import Loaded, load_preset
from lora_trainer.config.trainers import TRAINERS, Trainer

FOLDER = Path(__file__).parents[2] / "presets" / "gan"
PRESETS = sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "example")
NO_METRICS = "metrics: none are measured; fid50k_full, the usual one, needs a network: give its file in inception"
# CREPS' list of configurations: resolution, GPUs, s/kimg on V100 and A100, GB, gamma, batch_gpu, snap
LINES = [
    (128, 1, 73.68, 27.20, 7.2, 0.5, 16, 10), (128, 2, 37.30, 13.74, 7.1, 0.5, 0, 20),
    (128, 4, 20.66, 7.52, 4.1, 0.5, 0, 50), (128, 8, 11.31, 4.40, 2.6, 0.5, 0, 50),
    (256, 1, 89.15, 49.81, 9.5, 2, 16, 10), (256, 2, 45.45, 25.05, 9.3, 2, 0, 20),
    (256, 4, 23.94, 13.26, 5.2, 2, 0, 50), (256, 8, 13.04, 7.32, 3.1, 2, 0, 50),
    (512, 1, 137.33, 90.25, 7.8, 8, 8, 10), (512, 2, 69.65, 45.42, 7.7, 8, 8, 20),
    (512, 4, 34.88, 22.81, 7.6, 8, 0, 50), (512, 8, 18.47, 12.29, 4.3, 8, 0, 50),
    (1024, 1, 221.85, 156.91, 7.0, 32, 4, 5), (1024, 2, 113.44, 79.16, 6.8, 32, 4, 10),
    (1024, 4, 57.04, 39.62, 6.7, 32, 4, 20), (1024, 8, 28.71, 20.01, 6.6, 32, 0, 50),
]  # fmt: skip


@pytest.fixture(autouse=True)
def with_gan(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Trainer(GanPreset, GAN_RULES, unfold=unfold_gan)
    monkeypatch.setattr(reader, "TRAINERS", {**TRAINERS, "gan": row})


def loaded_preset(name: str) -> tuple[Loaded, GanPreset]:
    loaded = load_preset(FOLDER / f"{name}.json")
    return loaded, cast(GanPreset, loaded.preset)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_loads_and_every_key_in_it_has_an_effect(name: str) -> None:
    loaded, preset = loaded_preset(name)
    assert loaded.notes == (NO_METRICS,)
    assert not loaded.inert
    assert preset.output_dir == f"output/{name}"
    assert (FOLDER / str(loaded.given["$schema"])).resolve().name == "gan.schema.json"
    for world in (preset.gpus,) if preset.gpus else (1, 2, 4, 8):
        assert not list(launch_problems(preset, world))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_it_is_for_and_how_long_it_takes(name: str) -> None:
    _, preset = loaded_preset(name)
    about = preset.about
    assert len(about) > 200
    assert "s/kimg" in about or "no time" in about.casefold() or "not tuned" in about
    assert "gamma" in about or preset.resume or "paper" in about
    if preset.cfg == "creps":  # the times of its list are another network's
        assert "were measured with StyleGAN3-T" in about or "gives no time" in about


@pytest.mark.parametrize(("resolution", "gpus", "v100", "a100", "gigabytes", "gamma", "batch_gpu", "snap"), LINES)
def test_every_line_of_the_tables_is_a_preset(
    resolution: int, gpus: int, v100: float, a100: float, gigabytes: float, gamma: float, batch_gpu: int, snap: int
) -> None:
    loaded, preset = loaded_preset(f"creps_{resolution}px_{gpus}gpu")
    assert (preset.cfg, preset.gpus, preset.batch, preset.gamma) == ("creps", gpus, 32, gamma)
    assert (preset.batch_gpu, preset.snap, preset.kimg, preset.tick) == (batch_gpu, snap, 25000, 4)
    assert ("batch_gpu" in loaded.given) == bool(batch_gpu)
    assert suggested_gamma("creps", resolution, 32) == gamma
    assert f"{v100:g} s/kimg on V100 and {a100:g} on A100 with {gigabytes:g} GB a card" in preset.about


def test_the_examples_of_the_list_are_presets() -> None:
    _, afhq = loaded_preset("creps_afhqv2")
    assert (afhq.cfg, afhq.gpus, afhq.batch, afhq.gamma, afhq.mirror) == ("creps", 8, 32, 8.2, True)
    _, faces = loaded_preset("creps_metfaces_transfer")
    assert (faces.cfg, faces.gpus, faces.batch, faces.gamma, faces.mirror) == ("creps", 8, 32, 6.6, True)
    assert (faces.kimg, faces.snap, faces.resume) == (5000, 5, "models/creps-ffhq-1024x1024.pkl")


@pytest.mark.parametrize("cfg", ["stylegan2", "stylegan3-t", "stylegan3-r"])
def test_the_other_configs_have_counterparts_for_any_number_of_cards(cfg: str) -> None:
    for resolution in (128, 256, 512, 1024):
        _, preset = loaded_preset(f"{cfg}_{resolution}px")
        assert (preset.cfg, preset.batch, preset.gpus) == (cfg, 32, 0)
        assert preset.gamma == pytest.approx(suggested_gamma(cfg, resolution, 32), rel=0.03)
    assert loaded_preset(f"{cfg}_metfaces_transfer")[1].resume
    assert loaded_preset(f"{cfg}_afhqv2")[1].mirror
    assert loaded_preset(f"{cfg}_ffhq")[1].aug == "noaug"


def test_r3gan_has_the_numbers_of_its_paper() -> None:
    for name, first, last in (("cifar10", 0.05, 0.005), ("ffhq_64px", 2, 0.2), ("ffhq_256px", 150, 15)):
        assert loaded_preset(f"r3gan_{name}")[1].gammas == pytest.approx((first, last))
    _, cifar = loaded_preset("r3gan_cifar10")
    assert (cifar.cond, cifar.batch, cifar.p, cifar.ema_kimgs) == (True, 512, 0.55, (0, 5000))


def test_presets_are_written_alike() -> None:
    for name in PRESETS:
        text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
        assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
