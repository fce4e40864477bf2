"""stylegan3's options become one checked preset: their spellings, the folder of a run, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from lora_trainer.config import reader
from lora_trainer.config.gan import GanPreset
from lora_trainer.config.gan_gamma import missing_gamma, suggested_gamma
from lora_trainer.config.gan_launch import launch_note, launch_problems
from lora_trainer.config.gan_rules import GAN_RULES
from lora_trainer.config.gan_sections import unfold_gan
from lora_trainer.config.problems import PresetError
from lora_trainer.config.reader import Loaded, load_preset
from lora_trainer.config.trainers import TRAINERS, Trainer

GAN = Trainer(GanPreset, GAN_RULES, unfold=unfold_gan, told_by=("cfg", "data"))
REQUIRED = {"cfg": "creps", "data": "data/afhqv2-512x512.zip", "batch": 32, "gamma": 8.2, "output_dir": "out"}

Load = Callable[..., Loaded]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load the keys that must be there and more; a key that is None is left out."""
    monkeypatch.setattr(reader, "TRAINERS", {**TRAINERS, "gan": GAN})

    def read(*overrides: str, **keys: Any) -> Loaded:
        path = tmp_path / "mine.json"
        given = {key: value for key, value in {**REQUIRED, **keys}.items() if value is not None}
        path.write_text(json.dumps(given), encoding="utf-8")
        return load_preset(path, overrides)

    return read


def preset_of(loaded: Loaded) -> GanPreset:
    return cast(GanPreset, loaded.preset)


def problems(load: Load, **keys: Any) -> list[str]:
    with pytest.raises(PresetError) as caught:
        load(**keys)
    return list(caught.value.problems)


def test_what_a_preset_does_not_say_is_as_in_train_py(load: Load) -> None:
    preset = preset_of(load())
    assert preset.trainer == "gan"  # by its keys alone
    assert (preset.cond, preset.mirror, preset.aug, preset.p, preset.target) == (False, False, "ada", 0.2, 0.6)
    assert (preset.resume, preset.freezed, preset.batch_gpu, preset.cbase, preset.cmax) == ("", 0, 0, 32768, 512)
    assert (preset.mbstd_group, preset.kimg, preset.tick, preset.snap) == (4, 25000, 4, 50)
    assert (preset.fp32, preset.nobench, preset.workers, preset.desc) == (False, False, 3, "")
    assert (preset.number_format, preset.clamp) == ("fp16", 256)
    assert preset.discriminator_rates == (0.002, 0.002)


def test_the_options_as_they_are_typed_mean_the_same(load: Load) -> None:
    keys = {"batch-gpu": "8", "map-depth": 2, "mbstd-group": 8, "allow-tf32": 0}
    loaded = load(**keys, cfg="StyleGAN3-T", mirror="1", gamma="8", batch="64", cond=0, kimg="5000")
    preset = preset_of(loaded)
    assert (preset.batch_gpu, preset.map_depth, preset.mbstd_group, preset.allow_tf32) == (8, 2, 8, False)
    assert (preset.cfg, preset.mirror, preset.cond, preset.batch, preset.kimg) == ("stylegan3-t", True, False, 64, 5000)
    assert preset.gammas == (8.0, 8.0)
    assert 'batch-gpu: read as batch_gpu "8"' in loaded.notes
    (found,) = problems(load, **{"batch-gp": 3})
    assert "batch-gp: unknown key; did you mean batch_gpu?" in found


def test_gamma_may_be_missing_until_the_data_is_known_but_not_wrong(load: Load) -> None:
    assert preset_of(load(gamma=None)).gamma is None
    assert preset_of(load(gamma="")).gamma is None
    for wrong in (-1, "8,2", "auto", True, [8]):
        (found,) = problems(load, gamma=wrong)
        assert "gamma: found" in found
        assert "write a number from 0 upwards" in found


@pytest.mark.parametrize(
    ("cfg", "resolution", "batch", "gamma"),
    [
        ("creps", 128, 32, 0.5), ("creps", 256, 32, 2), ("creps", 512, 32, 8), ("creps", 1024, 32, 32),
        ("stylegan3-t", 256, 32, 2), ("stylegan3-r", 1024, 32, 32), ("stylegan3-r", 256, 64, 1),
        ("stylegan2", 128, 32, 0.1), ("stylegan2", 256, 16, 0.82), ("stylegan2", 1024, 32, 6.6),
        ("stylegan2", 512, 8, 6.6), ("r3gan", 256, 256, 150), ("r3gan", 64, 256, 2), ("r3gan", 128, 8, 17),
        ("stylegan3-t", 32, 16, 0.062),
    ],
)  # fmt: skip
def test_the_gamma_that_is_suggested_is_the_published_one(cfg: str, resolution: int, batch: int, gamma: float) -> None:
    assert suggested_gamma(cfg, resolution, batch) == gamma


def test_a_missing_gamma_is_told_with_a_number_to_write() -> None:
    assert missing_gamma("creps", 512, 32) == (
        "missing; write it, for example 8, the usual value of creps at 512 px with a batch of 32 (R1's weight, which "
        "grows with the square of the resolution; half, twice and four times as much are worth trying)"
    )
    assert "for example 4, the usual value of creps at 256 px with a batch of 16, 2 with 32 (R1's weight" in (
        missing_gamma("creps", 256, 16)
    )


def test_the_run_folder_is_made_of_outdir_and_the_options_unless_it_is_given(load: Load) -> None:
    loaded = load(output_dir=None, outdir="~/training-runs/", gpus=8, batch_gpu=4)
    assert loaded.preset.output_dir == "~/training-runs/creps-afhqv2-512x512-batch32-gamma8.2"
    assert "outdir" not in loaded.inert
    assert loaded.preset.output_name == "network-snapshot"
    keys = {"output_dir": None, "outdir": "d:\\läufe", "data": "c:\\my data\\FFHQ.ZIP", "desc": "first"}
    assert load(**keys, gamma="8.0").preset.output_dir == "d:\\läufe/creps-FFHQ-batch32-gamma8-first"
    assert load("desc=2024", **keys, gamma=None).preset.output_dir == "d:\\läufe/creps-FFHQ-batch32-2024"
    assert load(output_dir="", outdir="runs", data="x/").preset.output_dir == "runs/creps-x-batch32-gamma8.2"
    loaded = load(outdir="runs", desc="a")
    assert loaded.preset.output_dir == "out"
    assert loaded.inert == {"outdir": "output_dir is given", "desc": "output_dir is given"}
    (found,) = problems(load, output_dir=None)
    assert found.endswith("output_dir: missing; write it, for example training-runs/my_run, or outdir, the folder of "
                          "all runs")  # fmt: skip
    (found,) = problems(load, output_dir=None, outdir="...")
    assert "outdir: still the placeholder ..." in found


@pytest.mark.parametrize(
    ("cfg", "rate", "path_length", "mixing", "penalties"),
    [
        ("stylegan2", 0.002, 2, 0.9, (4, 16)),
        ("stylegan3-t", 0.0025, 0, 0, (4, 16)),
        ("stylegan3-r", 0.0025, 0, 0, (4, 16)),
        ("creps", 0.002, 2, 0, (4, 16)),
        ("r3gan", 0.0002, 0, 0, (4, 1)),
    ],
)
def test_each_config_has_its_own_rates_and_penalties(
    load: Load, cfg: str, rate: float, path_length: float, mixing: float, penalties: tuple[int, int]
) -> None:
    preset = preset_of(load(cfg=cfg))
    recipe = preset.recipe
    assert (preset.generator_rates[0], preset.path_length_weight, recipe.style_mixing) == (rate, path_length, mixing)
    assert (recipe.lazy_path_length, recipe.lazy_gradient_penalty) == penalties
    assert preset.blurs == (cfg == "stylegan3-r")
    assert preset_of(load(cfg=cfg, glr=0.003, dlr=0.001)).generator_rates[0] == 0.003
    assert preset_of(load(cfg=cfg, glr=0.003, dlr=0.001)).discriminator_rates[0] == 0.001


def test_r3gan_goes_from_one_set_of_numbers_to_another(load: Load) -> None:
    preset = preset_of(load(cfg="r3gan", gamma=150, batch=256, glr=0.0004))
    assert preset.generator_rates == (0.0004, 0.0001)
    assert preset.discriminator_rates == (0.0002, 0.00005)
    assert preset.gammas == (150, 15)
    assert preset.beta2s == (0.9, 0.99)
    assert (preset.ema_kimgs, preset.ema_rampup) == ((0, 500), None)
    assert preset.decay_kimg == 20000
    assert preset_of(load(cfg="r3gan", ema_kimg=5000)).ema_kimgs == (0, 5000)
    assert preset_of(load(ema_kimg=3)).ema_kimgs == (3, 3)
    stylegan = preset_of(load())
    assert (stylegan.beta2s, stylegan.gammas, stylegan.ema_kimgs) == ((0.99, 0.99), (8.2, 8.2), (10, 10))


def test_a_transfer_begins_without_blur_and_ramp_and_adapts_faster(load: Load) -> None:
    preset = preset_of(load(cfg="stylegan3-r", resume="ffhq.pkl", batch=16))
    assert (preset.blurs, preset.ema_rampup, preset.ada_kimg) == (False, None, 100)
    assert preset.ema_kimgs == (5, 5)
    preset = preset_of(load(cfg="stylegan3-r"))
    assert (preset.blurs, preset.ema_rampup, preset.ada_kimg) == (True, 0.05, 500)


def test_path_length_can_be_turned_off(load: Load) -> None:
    assert preset_of(load(pl_weight=0)).path_length_weight == 0
    assert preset_of(load(pl_weight="4.5")).path_length_weight == 4.5
    assert preset_of(load(cfg="stylegan3-t", pl_weight=2)).path_length_weight == 0


def test_thousands_of_images_are_counted_in_steps(load: Load) -> None:
    preset = preset_of(load())
    assert (preset.total_images, preset.total_steps) == (25_000_000, 781_250)
    assert (preset.steps_per_tick, preset.steps_per_snapshot) == (125, 6250)
    preset = preset_of(load(kimg=0.1, tick=0.01, snap=3, batch=12))
    assert (preset.total_images, preset.total_steps, preset.steps_per_tick, preset.steps_per_snapshot) == (100, 9, 1, 3)
    assert preset_of(load(snap=0)).steps_per_snapshot == 0


def test_a_batch_is_shared_out_over_processes_and_passes(load: Load) -> None:
    preset = preset_of(load())
    assert [(preset.images_per_pass(world), preset.passes(world)) for world in (1, 2, 8)] == [(32, 1), (16, 1), (4, 1)]
    preset = preset_of(load(batch_gpu=8))
    assert [(preset.images_per_pass(world), preset.passes(world)) for world in (1, 2, 8)] == [(8, 4), (8, 2), (4, 1)]
    assert [list(launch_problems(preset, world)) for world in (1, 2, 4, 8)] == [[], [], [], []]


@pytest.mark.parametrize(
    ("keys", "world", "key", "text"),
    [
        ({}, 3, "batch", "32 images cannot be shared out evenly over 3 processes; write 30 or 33"),
        ({"batch": 2}, 4, "batch", "2 images cannot be shared out evenly over 4 processes; write 4"),
        (
            {"batch_gpu": 12}, 2, "batch_gpu",
            "12 at a time do not make up the 16 images of each of 2 processes; write one of 4, 8, 16",
        ),
        (
            {"batch_gpu": 2}, 4, "batch_gpu",
            "2 images, which pass at a time in each of 4 processes, cannot be compared in groups of 4 (mbstd_group); "
            "write one of 4, 8, or a mbstd_group that 2 is a multiple of",
        ),
        (
            {"batch": 24}, 4, "batch",
            "6 images, which pass at a time in each of 4 processes, cannot be compared in groups of 4 (mbstd_group); "
            "write 16 or 32, or a mbstd_group that 6 is a multiple of",
        ),
        (
            {"batch": 6}, 1, "batch",
            "6 images, which pass at a time in the one process, cannot be compared in groups of 4 (mbstd_group); "
            "write 4 or 8, or a mbstd_group that 6 is a multiple of",
        ),
    ],
)  # fmt: skip
def test_a_batch_that_the_processes_cannot_share_is_refused(
    load: Load, keys: dict[str, Any], world: int, key: str, text: str
) -> None:
    assert list(launch_problems(preset_of(load(**keys)), world)) == [(key, text)]


def test_r3gan_compares_no_images(load: Load) -> None:
    preset = preset_of(load(cfg="r3gan", batch=6))
    assert not list(launch_problems(preset, 2))
    assert [problem for _, problem in launch_problems(preset_of(load(cfg="r3gan", batch=6, batch_gpu=2)), 2)] == [
        "2 at a time do not make up the 3 images of each of 2 processes; write one of 1, 3"
    ]


def test_another_number_of_processes_is_told(load: Load) -> None:
    preset = preset_of(load(gpus=8))
    assert launch_note(preset, 8) == ""
    assert launch_note(preset_of(load()), 8) == ""
    assert launch_note(preset, 2) == (
        "gpus: the preset was made for 8, and 2 processes were launched; the batch of 32 is the total, so the training "
        "is the same, 16 images at a time in each"
    )


def test_metrics_are_a_list_or_words_with_commas_or_none(load: Load) -> None:
    assert preset_of(load()).measured == ()
    assert preset_of(load(inception="i.pt")).measured == ("fid50k_full",)
    assert preset_of(load(inception="i.pt", metrics="none")).measured == ()
    assert preset_of(load(metrics="FID50k_full, pr50k3_full")).measured == ("fid50k_full", "pr50k3_full")
    preset = preset_of(load(metrics=["eqt50k_int", "kid50k_full", "eqt50k_int"]))
    assert (preset.measured, preset.metric_networks) == (("eqt50k_int", "kid50k_full"), ("inception",))
    assert preset_of(load(metrics=["ppl2_wend", "is50k"])).metric_networks == ("inception", "vgg")
    (found,) = problems(load, metrics=["fid50k_ful"])
    assert "there is no metric fid50k_ful; write none, or any of fid50k_full, kid50k_full," in found
    assert found.endswith("did you mean fid50k_full?")
    assert "metrics: found 5; write names in a list or with commas" in problems(load, metrics=5)[0]


def test_every_mistake_is_told_at_once(load: Load) -> None:
    wrong = {"cfg": "stylegan3", "batch": 0, "aug": "adaa", "target": 2, "kimg": 0, "tick": -1, "freezed": "x"}
    found = problems(load, **wrong, data=None, trainer="gan")
    keys = [problem.split(": ")[0].split()[-1] for problem in found]
    assert sorted(keys) == ["aug", "batch", "cfg", "data", "freezed", "kimg", "target", "tick"]


def test_what_is_fixed_for_a_run_is_in_its_fingerprint(load: Load) -> None:
    fixed = load().steps_fingerprint()
    assert fixed["gamma"] == 8.2
    changing = {"kimg", "tick", "snap", "metrics", "gpus", "output_dir", "workers", "nobench", "inception"}
    changing |= {"fused_filtered_lrelu"}
    assert not changing & set(fixed)
    assert json.loads(json.dumps(fixed)) == fixed
