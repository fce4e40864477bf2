"""HYPIR's keys become one checked preset: its sections, its words, weights that change, and what follows from them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config import reader
from lora_trainer.config.kinds import value_schema
from lora_trainer.config.problems import PresetError
from lora_trainer.config.reader import load_stages
from lora_trainer.config.restoration import RestorationPreset
from lora_trainer.config.restoration_loss import Lambdas
from lora_trainer.config.setting import keys_of
from lora_trainer.config.super_resolution import SuperResolutionPreset
from lora_trainer.data.degradation import SETTINGS, DegradationSettings
from tests.config.restoration_presets import GUIDE, REQUIRED, load, load_written, preset_of


def problems(folder: Path, **keys: Any) -> list[str]:
    with pytest.raises(PresetError) as caught:
        load(folder, **keys)
    return list(caught.value.problems)


def guide(*path: str, **changes: Any) -> dict[str, Any]:
    """The guide's file with changes in one of its sections."""
    content = copy.deepcopy(GUIDE)
    section = content
    for name in path:
        section = section[name]
    section.update(changes)
    return content


def test_the_guides_file_is_a_preset_as_it_is(tmp_path: Path) -> None:
    loaded = load_written(tmp_path / "sd2_finetune_5k_improved.json", GUIDE)
    preset = preset_of(loaded)
    assert (preset.trainer, preset.output_name, preset.seed) == ("restoration", "sd2_finetune_5k_improved", 231)
    assert preset.first_lambdas == Lambdas(l2=2, l1=2, lpips=3, ssim=1, gan=0.3)
    assert (preset.lr_G, preset.lr_D, preset.optimizer_type) == (2e-5, 5e-6, "AdamW")
    assert preset.optimizer_options == {"betas": (0.9, 0.999), "weight_decay": 1e-4}
    assert (preset.file_list, preset.out_size, preset.crop_type) == (("custom_5k_imp.parquet",), 512, "none")
    assert (preset.batch_size, preset.val_batch_size, preset.dataloader_num_workers) == (4, 1, 4)
    assert (preset.val_dir, preset.num_samples_per_type) == ("/data/AIO/Val", 0)
    assert preset.degradation_types == ("Blur", "Haze", "Lowlight", "Rain", "Snow")
    assert (preset.log_with, preset.log_tracker_name, preset.logging_dir) == ("swanlab", "HYPIR", "")
    assert (preset.high_order_degradation, preset.average_decay, preset.has_discriminator) == (False, 0.999, True)
    assert loaded.notes == ('optimizer_type: "adam" is read as "AdamW"',)
    assert loaded.inert == {}


def test_what_a_preset_does_not_say_is_hypirs(tmp_path: Path) -> None:
    preset = preset_of(load(tmp_path))
    assert preset.first_lambdas == Lambdas(l2=1, l1=0, lpips=5, ssim=0, gan=0.5)
    assert (preset.model_t, preset.coeff_t, preset.lora_rank, len(preset.lora_modules)) == (200, 200, 256, 13)
    assert (preset.lr_G, preset.lr_D, preset.max_grad_norm, preset.max_train_steps) == (1e-5, 1e-5, 1, 50000)
    assert (preset.mixed_precision, preset.gradient_checkpointing) == ("bf16", True)
    assert (preset.prompt, preset.val_prompt) == ("high quality, sharp details",) * 2
    assert (preset.validation_steps, preset.checkpointing_steps, preset.checkpoints_total_limit) == (500, 500, 2)
    assert (preset.penalises_gradients, preset.stand_ins, preset.train_dir) == (False, frozenset(), ("pairs",))


def test_null_and_empty_texts_mean_what_they_mean_in_hypir(tmp_path: Path) -> None:
    loaded = load_written(tmp_path / "a.json", {**REQUIRED, "checkpoints_total_limit": None, "prompt": ""})
    assert (preset_of(loaded).checkpoints_total_limit, preset_of(loaded).prompt) == (0, "")


def test_what_stands_at_the_top_wins_over_a_section(tmp_path: Path) -> None:
    loaded = load_written(tmp_path / "a.json", {**GUIDE, "num_samples_per_type": 30, "batch_size": 2})
    assert (preset_of(loaded).num_samples_per_type, preset_of(loaded).batch_size) == (30, 2)
    loaded = load_written(tmp_path / "a.json", GUIDE, "data_config.train.batch_size=8", "report_to=wandb", "model_t=9")
    assert (preset_of(loaded).batch_size, preset_of(loaded).log_with, preset_of(loaded).model_t) == (8, "wandb", 9)
    loaded = load_written(tmp_path / "a.json", {"log_with": "tensorboard", **GUIDE})
    assert preset_of(loaded).log_with == "tensorboard"


def test_upstreams_degradation_is_read_from_its_sections(tmp_path: Path) -> None:
    content = guide("data_config", "train", "dataset", target="HYPIR.dataset.realesrgan.RealESRGANDataset")
    train = content["data_config"]["train"]
    train["dataset"]["params"] = {
        "file_meta": {"file_list": "a.parquet", "image_path_prefix": "p", "image_path_key": "path", "prompt_key": "t"},
        "file_backend_cfg": {"target": "HYPIR.dataset.file_backend.HardDiskBackend"},
        "out_size": 256, "crop_type": "center", "use_hflip": False, "use_rot": False, "blur_kernel_size": 21,
        "kernel_list": ["iso"], "kernel_prob": [1.0], "blur_sigma": [0.2, 3], "p_empty_prompt": 0.2,
    }  # fmt: skip
    train["batch_transform"] = {
        "target": "HYPIR.dataset.batch_transform.RealESRGANBatchTransform",
        "params": {"hq_key": "hq", "extra_keys": ["txt"], "use_sharpener": False, "queue_size": 256,
                   "second_blur_prob": 0.7, "stage2_scale": 2, "resize_back": True, "jpeg_range2": [40, 90]},
    }  # fmt: skip
    loaded = load_written(tmp_path / "a.json", content)
    preset = preset_of(loaded)
    assert (preset.high_order_degradation, preset.file_list, preset.gt_key) == (True, ("a.parquet",), "path")
    assert (preset.image_path_prefix, preset.prompt_key, preset.p_empty_prompt) == ("p", "t", 0.2)
    assert (preset.out_size, preset.crop_type, preset.use_hflip, preset.use_rot) == (256, "center", False, False)
    assert (preset.kernel_list, preset.kernel_prob, preset.blur_sigma) == (("iso",), (1.0,), (0.2, 3.0))
    assert (preset.use_sharpener, preset.blur_prob2, preset.stage2_scale) == (False, 0.7, 2)
    assert preset.jpeg_range2 == (40, 90)
    assert loaded.inert == {}


@pytest.mark.parametrize(
    ("path", "changes", "problem"),
    [
        (
            ("data_config", "train", "dataset", "params"),
            {"out_siz": 512},
            "out_siz: unknown key; did you mean out_size?",
        ),
        (("data_config", "val"), {"batch_siz": 2}, "data_config.val.batch_siz: unknown key"),
        (("data_config", "train"), {"batch_size": 0}, "batch_size: found 0; write a whole number from 1 upwards"),
        (("data_config", "val"), {"batch_size": 0}, "val_batch_size: found 0; write a whole number from 1 upwards"),
        (
            ("data_config", "train", "dataset"),
            {"target": "mine.Pairs"},
            'data_config.train.dataset.target: found "mine.Pairs"; write one of PairedParquetDataset, '
            "IdentityBatchTransform, RealESRGANDataset, RealESRGANBatchTransform",
        ),
        ((), {"data_config": 3}, "data_config: found 3; write an object with train and val"),
        ((), {"report_to": "tensorbord"}, 'log_with: found "tensorbord"; write one of tensorboard'),
    ],
)
def test_what_is_wrong_in_a_section_is_told_at_its_place(
    tmp_path: Path, path: tuple[str, ...], changes: dict[str, Any], problem: str
) -> None:
    content = guide(*path, **changes)
    if "data_config" in changes:
        content |= {"train_dir": "pairs"}
    (tmp_path / "a.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    with pytest.raises(PresetError) as caught:
        reader.load_preset(tmp_path / "a.json")
    (found,) = caught.value.problems
    place, _, sentence = found.partition(" ")
    assert sentence.startswith(problem)
    (name,) = changes
    line = int(place.removeprefix(f"{tmp_path / 'a.json'}:").split(":")[0])
    assert f'"{name}"' in json.dumps(content, indent=1).splitlines()[line - 1]


def test_the_files_name_is_the_runs_unless_it_is_given(tmp_path: Path) -> None:
    assert load_written(tmp_path / "läufe neu.json", REQUIRED).preset.output_name == "läufe neu"
    assert load_written(tmp_path / "a.json", {**REQUIRED, "output_name": ""}).preset.output_name == "a"
    assert load_written(tmp_path / "a.json", {**REQUIRED, "output_name": "b"}).preset.output_name == "b"
    (found,) = problems(tmp_path, output_dir=None)
    assert "output_dir: missing" in found


def test_hypirs_folder_of_logs_is_that_in_output_dir(tmp_path: Path) -> None:
    assert [load(tmp_path, logging_dir=folder).preset.logging_dir for folder in ("logs", "./logs", "d:/logs")] == [
        "", "", "d:/logs",
    ]  # fmt: skip


def test_weights_change_when_so_many_steps_are_done(tmp_path: Path) -> None:
    schedule = [
        {"step": 10000, "lambda_l2": 2, "lambda_l1": 2, "lambda_lpips": 3, "lambda_ssim": 1, "lambda_gan": 0.3},
        {"step": "20000", "lambda_gan": 0},
        {"step": 90000, "lambda_l2": 9},
    ]
    loaded = load(tmp_path, lambda_l2=3, lambda_l1=3, lambda_lpips=2, lambda_gan=0.2, lambda_schedule=schedule)
    preset = preset_of(loaded)
    first, second = Lambdas(3, 3, 2, 0, 0.2), Lambdas(2, 2, 3, 1, 0.3)
    assert [preset.lambdas_at(done) for done in (0, 9999, 10000, 19999)] == [first, first, second, second]
    assert preset.lambdas_at(20000) == preset.lambdas_at(49999) == Lambdas(2, 2, 3, 1, 0)
    assert [stage.step for stage in preset.loss_stages] == [0, 10000, 20000, 90000]
    assert loaded.notes == ("lambda_schedule: the training ends at step 50000, before the change at step 90000",)
    assert loaded.steps_fingerprint()["lambda_schedule"] == [
        schedule[0], {"step": 20000, "lambda_gan": 0}, {"step": 90000, "lambda_l2": 9},
    ]  # fmt: skip


def test_the_gans_weight_rises_from_nothing(tmp_path: Path) -> None:
    preset = preset_of(load(tmp_path, lambda_gan=0.5, lambda_gan_warmup_steps=4, lambda_schedule=[
        {"step": 2, "lambda_gan": 1}]))  # fmt: skip
    assert [preset.lambdas_at(done).gan for done in range(6)] == [0, 0.125, 0.5, 0.75, 1, 1]
    assert preset.lambdas_at(0).lpips == 5
    assert preset_of(load(tmp_path)).lambdas_at(0).gan == 0.5


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ({"step": 3}, 'write a list of changes: [{"step": 10000, "lambda_gan": 0.3}]'),
        ([{"lambda_gan": 3}], 'write a list of changes: [{"step": 10000, "lambda_gan": 0.3}]'),
        ([{"step": 0, "lambda_gan": 3}], "step is 0; write a whole number from 1 upwards"),
        ([{"step": 5, "lambda_gan": -1}], "lambda_gan is -1; write a number from 0 upwards"),
        ([{"step": 5, "lambda_gan": "viel"}], 'lambda_gan is "viel"; write a number from 0 upwards'),
        ([{"step": 5}], "the change at step 5 changes nothing; write step and any of lambda_l2, lambda_l1"),
        ([{"step": 5, "lambda_gna": 1}], "lambda_l2, lambda_l1, lambda_lpips, lambda_ssim, lambda_gan; did you mean "
                                         "lambda_gan?"),
        ([{"step": 5, "lr_G": 1}], "a change has no lr_G; write step and any of lambda_l2"),
        ([{"step": 5, "lambda_l1": 1}, {"step": 5, "lambda_l2": 1}], "step 5 follows step 5; write each step once"),
        ([{"step": 9, "lambda_l1": 1}, {"step": 5, "lambda_l2": 1}], "step 5 follows step 9; write each step once"),
    ],
)  # fmt: skip
def test_a_wrong_change_of_weights_is_told(tmp_path: Path, schedule: Any, problem: str) -> None:
    (found,) = problems(tmp_path, lambda_schedule=schedule)
    assert "lambda_schedule: found " in found
    assert problem in found


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"model_t": 1000}, "model_t: found 1000; write a whole number from 0 to 999"),
        ({"base_model_type": "flux"}, 'base_model_type: found "flux"; write sd2'),
        ({"base_model_path": None}, "base_model_path: missing; write it, for example models/stable-diffusion-2-1-base"),
        ({"out_size": 500}, "out_size: found 500; write a whole number that is a multiple of 8 from 64 upwards"),
        ({"lr_G": 0}, "lr_G: found 0; write a number above 0"),
        ({"optimizer_type": "adamm"}, 'optimizer_type: found "adamm"; write one of AdamW'),
        ({"opt_kwargs": "betas=1"}, 'opt_kwargs: found "betas=1"; write an object of options: {"betas": [0.9'),
        ({"opt_kwargs": {"betas": {"a": 1}}}, "betas is an object; write a number, true, false, a text or a list"),
        ({"stage2_scale": 17}, "stage2_scale: found 17; write a whole number from 1 to 16"),
        ({"lamda_gan": 1}, "lamda_gan: unknown key; did you mean lambda_gan?"),
    ],
)
def test_a_wrong_value_is_told_with_what_may_be_written(tmp_path: Path, keys: dict[str, Any], problem: str) -> None:
    (found,) = problems(tmp_path, **{"trainer": "restoration", **keys})
    assert problem in found


def test_optimizers_go_by_hypirs_names_and_by_ours(tmp_path: Path) -> None:
    names = {"adam": "AdamW", "Adam": "AdamW", "rmsprop": "RMSprop", "adamw8bit": "AdamW8bit",
             "torch.optim.Adam": "torch.optim.Adam"}  # fmt: skip
    assert [preset_of(load(tmp_path, optimizer_type=name)).optimizer_type for name in names] == list(names.values())
    options = preset_of(load(tmp_path, "opt_kwargs.weight_decay=0.1", opt_kwargs={"eps": 1e-6})).optimizer_options
    assert options == {"eps": 1e-6, "weight_decay": 0.1}


def test_degradation_has_the_keys_of_super_resolution_and_hypirs_ranges(tmp_path: Path) -> None:
    preset = preset_of(load(tmp_path))
    settings = DegradationSettings(**{name: getattr(preset, name) for name in SETTINGS})
    assert settings.validate() == []
    assert (settings.blur_sigma, settings.blur_sigma2, settings.sinc_prob) == ((0.2, 3), (0.2, 1.5), 0.1)
    assert (settings.resize_range, settings.resize_range2) == ((0.15, 1.5), (0.3, 1.2))
    assert (settings.noise_range, settings.noise_range2) == ((1, 30), (1, 25))
    assert (settings.poisson_scale_range, settings.poisson_scale_range2) == ((0.05, 3), (0.05, 2.5))
    assert (settings.jpeg_range, settings.jpeg_range2) == ((30, 95), (30, 95))
    assert (settings.blur_prob, settings.blur_prob2, settings.final_sinc_prob) == (1, 0.8, 0.8)
    ours, theirs = keys_of(RestorationPreset), keys_of(SuperResolutionPreset)
    for name in set(SETTINGS) - {"lq_usm"}:
        assert ours[name].setting.about == theirs[name].setting.about
        assert ours[name].annotation == theirs[name].annotation


def test_a_stage_starts_from_the_weights_of_the_one_before(tmp_path: Path) -> None:
    stages = [{"stage": "pixels", "lambda_gan": 0}, {"stage": "gan", "max_train_steps": 9}]
    (tmp_path / "a.json").write_text(json.dumps({**REQUIRED, "stages": stages}), encoding="utf-8")
    found = [preset_of(loaded) for loaded in load_stages(tmp_path / "a.json")]
    assert [each.output_name for each in found] == ["a_pixels", "a_gan"]
    assert [each.weight_path for each in found] == ["", "out/1_pixels/a_pixels.safetensors"]
    assert [each.has_discriminator for each in found] == [False, True]


def test_every_key_has_a_story_and_a_schema() -> None:
    for key in keys_of(RestorationPreset).values():
        assert key.setting.about.endswith("."), key.name
        assert isinstance(value_schema(key.annotation), dict)
        assert key.name.isascii()


def test_r1_counts_the_discriminators_own_steps(tmp_path: Path) -> None:
    schedule = [{"step": 3, "lambda_gan": 0.5}, {"step": 7, "lambda_gan": 0}, {"step": 9, "lambda_gan": 1}]
    keys = {"lambda_gan": 0, "lambda_schedule": schedule, "r1_gamma": 1, "r1_interval": 3, "max_train_steps": 20}
    preset = preset_of(load(tmp_path, **keys))
    assert [step for step in range(20) if preset.penalises(step)] == [5, 10, 13, 16, 19]
    assert not any(preset_of(load(tmp_path, **{**keys, "r1_gamma": 0})).penalises(step) for step in range(20))


def test_a_section_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, data_config=[1])
    assert "data_config: found [1]; write an object with train and val" in found
