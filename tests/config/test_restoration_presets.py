"""The shipped restoration presets load, say what they are for, and have the values of HYPIR's guide."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config.reader import Loaded, load_preset
from lora_trainer.config.restoration import RestorationPreset
from lora_trainer.config.restoration_loss import Lambdas
from tests.config.restoration_presets import GUIDE, load_written, preset_of

FOLDER = Path(__file__).parents[2] / "presets" / "restoration"
PRESETS = sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "example")
IMPROVED = Lambdas(l2=2, l1=2, lpips=3, ssim=1, gan=0.3)
OURS = {"about", "schema_", "output_dir", "output_name", "base_model_path", "file_list", "val_dir", "log_with"}


def shipped(name: str) -> Loaded:
    return load_preset(FOLDER / f"{name}.json")


def changes(old: RestorationPreset, new: RestorationPreset) -> dict[str, Any]:
    """What the new one has where it differs, but for places and words."""
    names = {field.name for field in dataclasses.fields(old)} - OURS
    return {name: getattr(new, name) for name in names if getattr(new, name) != getattr(old, name)}


@pytest.fixture
def guide(tmp_path: Path) -> RestorationPreset:
    """The guide's improved file."""
    return preset_of(load_written(tmp_path / "a.json", GUIDE))


def test_these_are_there() -> None:
    assert PRESETS == ["sd2_finetune_5k", "sd2_finetune_5k_improved", "sd2_rank512", "sd2_staged", "sd2_t100"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_loads_and_every_key_in_it_has_an_effect(name: str) -> None:
    loaded = shipped(name)
    preset = preset_of(loaded)
    assert not loaded.notes
    assert not loaded.inert
    assert (preset.trainer, preset.output_dir, preset.output_name) == ("restoration", f"output/{name}", name)
    assert (FOLDER / str(loaded.given["$schema"])).resolve().name == "restoration.schema.json"
    assert (preset.log_with, preset.log_tracker_name) == ("tensorboard", "HYPIR")
    assert preset.stand_ins == frozenset()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_it_is_for_and_claims_no_time(name: str) -> None:
    about = preset_of(shipped(name)).about
    assert "A100 of 40 GB" in about
    assert "Neither memory nor time was measured here" in about
    assert "HYPIR's guide" in about
    assert "base_model_path" in about
    assert "log_with=swanlab" in about


def test_the_improved_preset_is_the_guides_file(guide: RestorationPreset) -> None:
    preset = preset_of(shipped("sd2_finetune_5k_improved"))
    assert changes(guide, preset) == {}
    assert preset.first_lambdas == IMPROVED
    assert (preset.lr_G, preset.lr_D, preset.optimizer_options["weight_decay"]) == (2e-5, 5e-6, 1e-4)


def test_the_first_preset_has_the_guides_other_numbers(guide: RestorationPreset) -> None:
    assert changes(guide, preset_of(shipped("sd2_finetune_5k"))) == {
        "lambda_gan": 0.5, "lambda_lpips": 5, "lambda_l2": 1, "lambda_l1": 1, "lambda_ssim": 0, "lr_G": 1e-5,
        "lr_D": 1e-5, "opt_kwargs": (("betas", (0.9, 0.999)),),
    }  # fmt: skip


def test_two_stages_in_one_preset(guide: RestorationPreset) -> None:
    preset = preset_of(shipped("sd2_staged"))
    assert set(changes(guide, preset)) == {
        "lambda_l2", "lambda_l1", "lambda_lpips", "lambda_gan", "lambda_schedule",
    }  # fmt: skip
    first = Lambdas(l2=3, l1=3, lpips=2, ssim=1, gan=0.2)
    assert [preset.lambdas_at(done) for done in (0, 9999, 10000, 49999)] == [first, first, IMPROVED, IMPROVED]


def test_a_lower_timestep_and_a_higher_rank(guide: RestorationPreset) -> None:
    assert changes(guide, preset_of(shipped("sd2_t100"))) == {"model_t": 100, "coeff_t": 100}
    assert changes(guide, preset_of(shipped("sd2_rank512"))) == {"lora_rank": 512}
