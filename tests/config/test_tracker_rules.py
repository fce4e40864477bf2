"""Keys of trackers and previews that another key makes idle, for every trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_trainer.config.reader import Loaded, load_preset

Load = Callable[..., Loaded]
Write = Callable[[dict[str, object]], Path]

ALL = {
    "logging_dir": "somewhere",
    "wandb_run_name": "third",
    "log_tracker_name": "cats",
    "log_tracker_config": "a.toml",
    "log_config": True,
}


LORA = {
    "pretrained_model_name_or_path": "base.safetensors",
    "train_data_dir": "data",
    "output_dir": "out",
    "output_name": "mine",
}
UPSCALER = {
    "trainer": "super_resolution",
    "output_dir": "out",
    "output_name": "mine",
    "network_g": {"type": "span"},
    "dataroot_gt": "hr",
    "total_iter": 5,
}


@pytest.mark.parametrize("required", [LORA, UPSCALER])
def test_without_a_tracker_its_keys_are_idle(write: Write, required: dict[str, object]) -> None:
    off = load_preset(write({**required, **ALL, "log_with": "none"})).inert
    assert {key: off.get(key) for key in ALL} == dict.fromkeys(ALL, "log_with is none")
    on = load_preset(write({**required, **ALL})).inert
    assert not ALL.keys() & on.keys()


def test_a_project_of_wandb_in_sections_is_the_tracker_s_name(write: Write) -> None:
    preset = load_preset(write({**UPSCALER, "logger": {"wandb": {"project": "cats", "resume_id": None}}})).preset
    assert (preset.log_with, preset.log_tracker_name) == ("wandb", "cats")


def test_the_key_of_wandb_needs_wandb(load: Load) -> None:
    assert load(wandb_api_key="k").inert == {"wandb_api_key": "log_with does not name wandb"}


@pytest.mark.parametrize(
    ("keys", "inert"),
    [
        ({"sample_at_first": True, "sample_sampler": "ddim"}, {"sample_at_first", "sample_sampler"}),
        ({"sample_at_first": False, "sample_sampler": "euler_a"}, set()),
        (
            {"sample_at_first": True, "sample_prompts": "a cat", "sample_sampler": "ddim", "sample_every_n_steps": 5},
            set(),
        ),
    ],
)
def test_without_previews_their_keys_are_idle(load: Load, keys: dict[str, object], inert: set[str]) -> None:
    assert set(load(**keys).inert) == inert


def test_a_tracker_s_name_is_the_name_of_a_folder(problems: Callable[..., list[str]]) -> None:
    (problem,) = problems(log_tracker_name="../up")
    assert 'log_tracker_name: found "../up"; a file name cannot hold' in problem
