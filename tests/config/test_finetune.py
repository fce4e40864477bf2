"""EveryDream2's files become one checked preset: train.json, optimizer.json, the validation's json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pytest

from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.config.problems import PresetError
from lora_trainer.config.reader import Loaded, load_preset

TRAIN_JSON: Mapping[str, Any] = MappingProxyType({  # every key of the program's own file, with its nulls
    "batch_size": 10, "ckpt_every_n_minutes": None, "clip_grad_norm": None, "clip_skip": 0, "cond_dropout": 0.04,
    "data_root": "X:\\my_project_data\\project_abc", "disable_amp": False, "disable_textenc_training": False,
    "disable_xformers": False, "flip_p": 0.0, "gpuid": 0, "gradient_checkpointing": True, "grad_accum": 1,
    "logdir": "logs", "log_step": 25, "lowvram": False, "lr": 1.5e-06, "lr_decay_steps": 0,
    "lr_scheduler": "constant", "lr_warmup_steps": None, "max_epochs": 30, "notebook": False,
    "project_name": "project_abc", "resolution": 512, "resume_ckpt": "sd_v1-5_vae", "run_name": None,
    "sample_prompts": "sample_prompts.txt", "sample_steps": 300, "save_ckpt_dir": None, "save_ckpts_from_n_epochs": 0,
    "save_every_n_epochs": 20, "save_full_precision": False, "save_optimizer": False, "scale_lr": False, "seed": 555,
    "shuffle_tags": False, "useadam8bit": True, "validation_config": None, "wandb": False, "write_schedule": False,
    "rated_dataset": False, "rated_dataset_target_dropout_percent": 50, "zero_frequency_noise_ratio": 0.02,
    "loss_type": "mse_huber", "min_snr_gamma": None, "ema_decay_rate": None, "ema_strength_target": None,
    "ema_update_interval": None, "ema_device": None, "ema_sample_nonema_model": False, "ema_sample_ema_model": False,
    "ema_resume_model": None, "train_sampler": "ddpm", "embedding_perturbation": 0.0, "keep_tags": 0,
    "enable_zero_terminal_snr": False, "pyramid_noise_discount": None, "attn_type": "sdp", "optimizer_config": None,
    "timestep_start": 0, "timestep_end": 1000, "no_save_ckpt": False, "no_prepend_last": False, "plugins": None,
    "load_settings_every_epoch": False, "disable_unet_training": False,
})  # fmt: skip
OPTIMIZER_JSON: Mapping[str, Any] = MappingProxyType({
    "doc": {"base": "for the UNet"},
    "base": {
        "optimizer": "adamw8bit", "lr": 1e-6, "lr_scheduler": "cosine", "lr_decay_steps": None,
        "lr_warmup_steps": None, "betas": [0.9, 0.999], "epsilon": 1e-8, "weight_decay": 0.01,
    },
    "text_encoder_overrides": {
        "optimizer": None, "lr": 5e-7, "lr_scheduler": "linear", "lr_decay_steps": 90, "lr_warmup_steps": 3,
        "betas": None, "epsilon": None, "weight_decay": 0.04,
    },
    "text_encoder_freezing": {"unfreeze_last_n_layers": 6},
    "apply_grad_scaler_step_tweaks": True,
})  # fmt: skip

Load = Callable[..., Loaded]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load the keys that must be there and more, from a file `train.json`."""

    def read(*overrides: str, **keys: Any) -> Loaded:
        path = tmp_path / "train.json"
        path.write_text(json.dumps({"resume_ckpt": "base", "data_root": "input", **keys}), encoding="utf-8")
        return load_preset(path, overrides)

    return read


def preset_of(loaded: Loaded) -> FinetunePreset:
    return cast(FinetunePreset, loaded.preset)


def problems(load: Load, **keys: Any) -> list[str]:
    with pytest.raises(PresetError) as caught:
        load(**keys)
    return list(caught.value.problems)


def test_a_train_json_loads_unchanged_and_is_known_without_the_key_trainer(load: Load) -> None:
    loaded = load(**TRAIN_JSON)
    preset = preset_of(loaded)
    assert (preset.trainer, preset.output_dir, preset.output_name) == ("finetune", "logs/project_abc", "project_abc")
    assert preset.data_root == "X:\\my_project_data\\project_abc"
    assert (preset.batch_size, preset.max_epochs, preset.log_every, preset.seed) == (10, 30, 25, 555)
    assert preset.optimizer == "AdamW8bit"
    assert preset.attention == "sdpa"
    assert (preset.ema_update_interval, preset.lr_warmup_steps, preset.min_snr_gamma) == (500, -1, 0)
    assert loaded.inert == {}


def test_what_a_preset_does_not_say_is_as_in_the_program(load: Load) -> None:
    preset = preset_of(load())
    assert (preset.output_dir, preset.output_name) == ("logs/myproj", "myproj")
    assert (preset.max_epochs, preset.batch_size, preset.grad_accum, preset.resolution) == (300, 2, 1, 512)
    assert (preset.cond_dropout, preset.flip_p, preset.seed, preset.sample_steps) == (0.04, 0, 555, 250)
    assert (preset.zero_frequency_noise_ratio, preset.loss_type, preset.lr_scheduler) == (0.02, "mse_huber", "constant")
    assert (preset.unet_rate(2), preset.text_encoder_rate(2)) == (1e-6, 5e-7)
    assert preset.number_format == "fp16"


def test_other_names_mean_the_same(load: Load) -> None:
    loaded = load(log_every=3, disable_xformers=False, useadam8bit=False, wandb=True, run_name="one", seed=-1)
    preset = preset_of(loaded)
    assert (preset.log_every, preset.attn_type, preset.optimizer) == (3, "xformers", "AdamW")
    assert (preset.log_with, preset.wandb_run_name, preset.seed) == ("wandb", "one", 0)
    assert preset_of(load(amp=False)).number_format == "no"
    assert preset_of(load(optimizer="dadapt_lion")).optimizer == "DAdaptLion"


def test_optimizer_json_is_read_beside_the_preset(load: Load, tmp_path: Path) -> None:
    (tmp_path / "optimizer.json").write_text(json.dumps(dict(OPTIMIZER_JSON)), encoding="utf-8")
    loaded = load(optimizer_config="optimizer.json")
    preset = preset_of(loaded)
    assert (preset.unet_rate(2), preset.text_encoder_rate(2)) == (1e-6, 5e-7)
    assert (preset.lr_scheduler, preset.text_encoder_lr_scheduler) == ("cosine", "linear")
    assert (preset.text_encoder_lr_decay_steps, preset.text_encoder_lr_warmup_steps) == (90, 3)
    assert (preset.optimizer, preset.text_encoder_optimizer_name) == ("AdamW8bit", "AdamW8bit")
    assert preset.optimizer_options == {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
    assert preset.text_encoder_optimizer_options == {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.04}
    assert preset.unfreeze_last_n_layers == 6
    assert not loaded.notes


def test_an_older_optimizer_json_has_no_sections(load: Load, tmp_path: Path) -> None:
    keys = {"optimizer": "adamw", "lr": 2e-6, "text_encoder_lr_scale": 0.5, "betas": [0.9, 0.99], "documentation": {}}
    (tmp_path / "optimizer.json").write_text(json.dumps(keys), encoding="utf-8")
    preset = preset_of(load(optimizer_config="optimizer.json"))
    assert (preset.optimizer, preset.optimizer_options) == ("AdamW", {"betas": (0.9, 0.99)})
    assert (preset.unet_rate(1), preset.text_encoder_rate(1)) == (2e-6, 1e-6)


def test_the_preset_comes_before_its_optimizer_json_and_says_so(load: Load, tmp_path: Path) -> None:
    (tmp_path / "optimizer.json").write_text(json.dumps(dict(OPTIMIZER_JSON)), encoding="utf-8")
    keys = {**TRAIN_JSON, "optimizer_config": "optimizer.json", "lr": 2e-6}
    del keys["useadam8bit"]
    loaded = load(**keys)
    preset = preset_of(loaded)
    assert (preset.unet_rate(2), preset.text_encoder_rate(2)) == (2e-6, 2e-6)
    assert preset.lr_scheduler == "constant"
    (note,) = [note for note in loaded.notes if note.startswith("optimizer_config")]
    assert note == (
        "optimizer_config: lr 2e-06 counts, not base.lr 1e-06 and text_encoder_overrides.lr 5e-07 of the file; "
        'lr_scheduler "constant" counts, not "cosine" of the file'
    )


def test_an_optimizer_gets_the_options_that_it_takes(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "optimizer.json"
    base = {**OPTIMIZER_JSON["base"], "optimizer": "lion", "d0": 1e-6}
    file.write_text(json.dumps({"base": base}), encoding="utf-8")
    loaded = load(optimizer_config="optimizer.json")
    assert preset_of(loaded).optimizer_options == {"betas": (0.9, 0.999), "weight_decay": 0.01, "d0": 1e-6}
    assert "optimizer_config: epsilon of the file: lion has no such option" in loaded.notes


def test_the_text_encoders_own_optimizer_decides_about_its_options(load: Load, tmp_path: Path) -> None:
    text = {"optimizer": "lion", "betas": [0.9, 0.95], "epsilon": 1e-8}
    (tmp_path / "optimizer.json").write_text(json.dumps({"text_encoder_overrides": text}), encoding="utf-8")
    loaded = load(optimizer_config="optimizer.json", optimizer="AdamW", optimizer_args="eps=1e-6")
    preset = preset_of(loaded)
    assert (preset.optimizer, preset.text_encoder_optimizer_name) == ("AdamW", "Lion")
    assert preset.optimizer_options == {"eps": 1e-6}
    assert preset.text_encoder_optimizer_options == {"betas": (0.9, 0.95)}
    assert "optimizer_config: epsilon of the file: lion has no such option" in loaded.notes


def test_a_wrong_optimizer_json_is_refused_at_its_own_place(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "optimizer.json"
    file.write_text('{\n "base": {\n  "lr_scheduler": "cosin",\n  "beta": 1}, "bas": 1}', encoding="utf-8")
    found = problems(load, optimizer_config="optimizer.json")
    assert found[0].startswith(f"{file}:4:15 optimizer_config.bas: unknown key")
    assert f'{file}:3:19 lr_scheduler: found "cosin"; write one of constant, linear, cosine, polynomial' in found[-1]
    (found_missing,) = problems(load, optimizer_config="other.json")
    assert "other.json: there is no such file; put it beside the preset, or remove the key" in found_missing
    file.write_text("[]", encoding="utf-8")
    assert "optimizer_config: found []; write an object" in problems(load, optimizer_config="optimizer.json")[0]


def test_the_validation_json_is_read(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "validation.json"
    keys = {
        "doc": {}, "validate_training": True, "val_split_mode": "automatic", "auto_split_proportion": 0.2,
        "manual_data_root": None, "stabilize_training_loss": True, "stabilize_split_proportion": 0.1,
        "every_n_epochs": 0.5, "seed": 7, "extra_manual_datasets": {"faces": "data/faces"},
    }  # fmt: skip
    file.write_text(json.dumps(keys), encoding="utf-8")
    preset = preset_of(load(validation_config="validation.json", seed=3))
    assert preset.validates
    assert (preset.val_split_mode, preset.auto_split_proportion, preset.val_every_n_epochs) == ("automatic", 0.2, 0.5)
    assert (preset.val_seed, preset.seed) == (7, 3)
    assert preset.extra_manual_datasets == (("faces", "data/faces"),)
    file.write_text("{}", encoding="utf-8")
    assert preset_of(load(validation_config="validation.json")).val_split_mode == "automatic"
    assert not preset_of(load()).validates


def test_prompts_are_found_beside_the_preset(load: Load, tmp_path: Path) -> None:
    (tmp_path / "sample_prompts.txt").write_text("a cat", encoding="utf-8")
    assert preset_of(load(sample_prompts="sample_prompts.txt")).sample_prompts == str(tmp_path / "sample_prompts.txt")
    assert preset_of(load(sample_prompts="none.txt")).sample_prompts == "none.txt"


def test_the_run_folder_is_logdir_and_project_name_unless_it_is_given(load: Load) -> None:
    preset = preset_of(load(logdir="r:/logs/", project_name="cats"))
    assert (preset.output_dir, preset.output_name) == ("r:/logs/cats", "cats")
    loaded = load(logdir="elsewhere", output_dir="out", output_name="dogs", project_name="cats")
    assert (loaded.preset.output_dir, loaded.preset.output_name) == ("out", "dogs")
    assert loaded.inert == {
        "logdir": "output_dir is given",
        "project_name": "output_dir and output_name are given",
    }
    assert load("output_dir=x").preset.output_dir == "x"
    assert load("project_name=2024").preset.output_name == "2024"
    (found,) = problems(load, project_name="a/b")
    assert "project_name: found" in found


def test_rates_follow_the_size_of_a_step_where_they_should(load: Load) -> None:
    preset = preset_of(load(lr=2e-6, scale_lr=True, batch_size=6, grad_accum=2))
    assert preset.unet_rate(12) == pytest.approx(2e-6 * 12**0.55, rel=1e-15)
    assert preset.unet_rate(12) == pytest.approx(7.8443e-06, rel=1e-4)
    assert preset_of(load(lr=2e-6)).unet_rate(12) == 2e-6
    assert preset_of(load(lr=1, optimizer="prodigy", scale_lr=True)).unet_rate(12) == 1.0
    assert preset_of(load(disable_unet_training=True)).unet_rate(12) is None
    assert preset_of(load(disable_textenc_training=True)).text_encoder_rate(12) is None


def test_a_text_encoder_with_another_optimizer_has_its_options_alone(load: Load) -> None:
    preset = preset_of(
        load(
            optimizer_args="betas=0.9,0.9", text_encoder_optimizer="Lion", text_encoder_optimizer_args="weight_decay=1"
        )
    )
    assert preset.text_encoder_optimizer_options == {"weight_decay": 1}


def test_lowvram_makes_the_run_small(load: Load) -> None:
    loaded = load(lowvram=True, batch_size=8, resolution=768)
    preset = preset_of(loaded)
    assert (preset.batch_size, preset.grad_accum, preset.resolution) == (1, 1, 512)
    assert (preset.gradient_checkpointing, preset.optimizer) == (True, "AdamW8bit")
    assert any(note.startswith("lowvram: batch_size is 1, ") for note in loaded.notes)


@pytest.mark.parametrize(
    ("keys", "minutes"),
    [
        ({}, 20), ({"save_every_n_epochs": 2}, 0), ({"ckpt_every_n_minutes": 5}, 5), ({"ckpt_every_n_minutes": 0}, 0),
        ({"save_every_n_epochs": 2, "ckpt_every_n_minutes": "7.5"}, 7.5), ({"ckpt_every_n_minutes": -3}, 0),
    ],
)  # fmt: skip
def test_models_are_written_every_twenty_minutes_if_nothing_is_said(
    load: Load, keys: dict[str, Any], minutes: float
) -> None:
    assert preset_of(load(**keys)).minutes_between_models == minutes


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"resolution": 600}, "write a whole number that is a multiple of 64 from 64 to 2048"),
        ({"clip_skip": 5}, "clip_skip: found 5; write a whole number from 0 to 4"),
        ({"lr_scheduler": "cosin"}, "did you mean cosine?"),
        ({"cond_dropout": 1.5}, "cond_dropout: found 1.5; write a number from 0 to 1"),
        ({"zero_frequency_noise_ratio": 0.5}, "write a number from 0 to 0.15"),
        ({"shufle_tags": True}, "shufle_tags: unknown key; did you mean shuffle_tags?"),
        ({"ckpt_every_n_minutes": "often"}, 'found "often"; write a number'),
        ({"extra_manual_datasets": ["a"]}, "write an object of paths with a name each"),
        ({"plugins": "plugins.textual_inversion.TextualInversion"}, "is not supported yet; remove the key"),
        ({"data_root": ""}, "data_root: empty; write it, for example input"),
    ],
)
def test_a_wrong_value_is_refused(load: Load, keys: dict[str, Any], problem: str) -> None:
    (found,) = problems(load, **keys)
    assert problem in found
