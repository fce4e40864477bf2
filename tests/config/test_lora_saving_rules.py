"""What the keys about files, states and uploads mean together."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.reader import Loaded

Load = Callable[..., Loaded]
Problems = Callable[..., list[str]]
NOWHERE = "huggingface_repo_id is empty, so nothing is uploaded"


@pytest.mark.parametrize(
    ("keys", "inert"),
    [
        ({"save_last_n_steps": 3}, {"save_last_n_steps": "save_every_n_steps is 0"}),
        (
            {"save_every_n_epochs": 0, "save_last_n_epochs": 3, "save_last_n_epochs_state": 2},
            {
                "save_last_n_epochs": "save_every_n_epochs is 0",
                "save_last_n_epochs_state": "save_every_n_epochs is 0",
            },
        ),
        ({"save_last_n_epochs_state": 2}, {"save_last_n_epochs_state": "save_state is off"}),
        ({"save_last_n_epochs_state": 2, "save_state": True}, {}),
        (
            {"save_state": True, "save_state_on_train_end": True},
            {"save_state_on_train_end": "save_state keeps one at the end too"},
        ),
        (
            {"save_model_as": "pt", "training_comment": "trigger", "metadata_title": "Title"},
            {"training_comment": "a pt file has no metadata", "metadata_title": "a pt file has no metadata"},
        ),
        (
            {"async_upload": True, "huggingface_token": "hf_x", "huggingface_repo_visibility": "public"},
            {"async_upload": NOWHERE, "huggingface_token": NOWHERE, "huggingface_repo_visibility": NOWHERE},
        ),
        (
            {"huggingface_repo_id": "me/x", "save_state_to_huggingface": True},
            {"save_state_to_huggingface": "save_state and save_state_on_train_end are off"},
        ),
        ({"huggingface_repo_id": "me/x", "huggingface_repo_type": "Dataset", "huggingface_token": "hf_x"}, {}),
        ({"huggingface_token": "hf_x", "resume_from_huggingface": "me/x/tiny-state"}, {}),
    ],
)
def test_idle_keys_are_listed(load: Load, keys: dict[str, object], inert: dict[str, str]) -> None:
    found = load(**keys).inert
    shown = {key for key in found if key in keys}
    assert {key: found[key] for key in shown} == inert


def test_what_sd_scripts_would_read_otherwise_is_noted(load: Load) -> None:
    notes = load(save_every_n_steps=100, save_last_n_steps=1000).notes
    text = "the last 1000 stay; what sd-scripts keeps with this number are 10 or one more"
    assert [note for note in notes if "save_last_n_steps" in note and text in note]
    assert not [note for note in load(save_every_n_steps=100, save_last_n_steps=5).notes if "sd-scripts" in note]
    assert [note for note in load(save_model_as="ckpt").notes if "has no metadata" in note]


def test_previews_that_are_never_due_are_drawn_on_demand(load: Load) -> None:
    assert [note for note in load(sample_prompts="a cat", sample_sampler="ddim").notes if "a file sample.now" in note]


def test_two_states_are_one_too_many(problems: Problems) -> None:
    assert problems(resume="a-state", resume_from_huggingface="me/x/tiny-state") == [
        "7:30 resume_from_huggingface: and resume name a state each; leave one of them empty"
    ]
    (problem,) = problems(resume_from_huggingface=True)
    assert "is to hold the address of a state on the hub" in problem


@pytest.mark.parametrize(
    ("keys", "place", "on_hub"),
    [
        ({}, "", False),
        ({"resume": "out/tiny-state"}, "out/tiny-state", False),
        ({"resume": "out/tiny-state", "resume_from_huggingface": False}, "out/tiny-state", False),
        ({"resume": "me/x/tiny-state", "resume_from_huggingface": True}, "me/x/tiny-state", True),
        ({"resume": "me/x/tiny-state", "resume_from_huggingface": "true"}, "me/x/tiny-state", True),
        ({"resume_from_huggingface": " me/x/tiny-state:v1 "}, "me/x/tiny-state:v1", True),
    ],
)
def test_where_a_state_is_named(load: Load, keys: dict[str, object], place: str, on_hub: bool) -> None:
    preset = load(**keys).preset
    assert isinstance(preset, LoraPreset)
    assert (preset.resumes_from, preset.resumes_from_hub) == (place, on_hub)
