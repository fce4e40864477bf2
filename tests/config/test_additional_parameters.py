"""The GUI's field for more arguments of sd-scripts: each is the key that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lora_trainer.config.kinds import Switch
from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.reader import Loaded
from lora_trainer.config.schema import default_as_written
from lora_trainer.config.sd_scripts_arguments import FLAGS, IDLE, REFUSED, RENAMED, SAME, meaning_of, read_words
from lora_trainer.config.sd_scripts_network import NETWORK_KEYS
from lora_trainer.config.setting import keys_of

Load = Callable[..., Loaded]
Problems = Callable[..., list[str]]
PLACE = "6:28 additional_parameters"


def preset_of(load: Load, words: str, **keys: object) -> LoraPreset:
    preset = load(**{"seed": 1, **keys, "additional_parameters": words}).preset
    assert isinstance(preset, LoraPreset)
    return preset


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--max_grad_norm=0", {"max_grad_norm": 0.0}),
        ("--max_grad_norm 0.5 --max_grad_norm 2", {"max_grad_norm": 2.0}),
        ("--flip_aug --shuffle_caption --keep_tokens 3", {"flip_aug": True, "keep_tokens": 3}),
        ('--vae "C:\\my models\\vae.pt" --output_name=\'a b\'', {"vae": "C:\\my models\\vae.pt", "output_name": "a b"}),
        ("--optimizer_type=Lion --optimizer_args weight_decay=0.1 betas=0.9,0.99",
         {"optimizer": "Lion", "optimizer_options": {"weight_decay": 0.1, "betas": (0.9, 0.99)}}),
        ('--optimizer_args "betas=(0.9, 0.99)" "eps=1e-6"',
         {"optimizer_options": {"betas": (0.9, 0.99), "eps": 1e-6}}),
        ('--lr_scheduler_type "CosineAnnealingLR" --lr_scheduler_args "T_max=1000" "eta_min=0e-0"',
         {"lr_scheduler_type": "CosineAnnealingLR", "lr_scheduler_options": {"T_max": 1000, "eta_min": 0.0}}),
        ("--resolution=768,512", {"max_resolution": (768, 512), "resolution_px": (512, 768)}),
        ("--sdpa", {"xformers": "sdpa"}),
        ("--use_8bit_adam", {"optimizer": "AdamW8bit"}),
        ("--lr_warmup_steps 100", {"lr_warmup_steps": 100.0}),
        ("--network_module=lycoris.kohya --network_args algo=loha preset=attn-mlp conv_dim=4 dropout=0.2",
         {"LoRA_type": "LyCORIS/LoHa", "LyCORIS_preset": "attn-mlp", "conv_dim": 4, "network_dropout": 0.2}),
        ("--network_args conv_dim=4 conv_alpha=2", {"LoRA_type": "Kohya LoCon", "conv_dim": 4, "conv_alpha": 2.0}),
        ("--network_module networks.dylora --network_args unit=4 conv_dim=0", {"LoRA_type": "Kohya DyLoRA", "unit": 4}),
        ("--text_encoder_lr 1e-5 2e-5", {"text_encoder_lr": 1e-5}),
        ("--sample_prompts C:/prompts.txt --sample_at_first", {"sample_prompts": "C:/prompts.txt"}),
        ("--no_metadata --zero_terminal_snr --ip_noise_gamma .1", {"no_metadata": True, "zero_terminal_snr": True}),
        ("--caption_extention .caption", {"caption_extension": ".caption"}),
        ("--cache_text_encoder_outputs_to_disk", {"sdxl_cache_text_encoder_outputs": True,
                                                  "cache_text_encoder_outputs_to_disk": True}),
    ],
)  # fmt: skip
def test_arguments_are_keys(load: Load, words: str, expected: dict[str, Any]) -> None:
    preset = preset_of(load, words, network_dim=8)
    assert {key: getattr(preset, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("words", "keys", "unet", "text_encoder"),
    [
        ("--network_train_unet_only", {}, 1e-4, None),
        ("--text_encoder_lr 1e-5 --network_train_unet_only", {"unet_lr": 2e-4}, 2e-4, None),
        ("--network_train_unet_only", {"unet_lr": 0, "text_encoder_lr": 0, "learning_rate": 3e-4}, 3e-4, None),
        ("--network_train_unet_only --learning_rate 5e-4", {"unet_lr": "", "text_encoder_lr": 1e-4}, 5e-4, None),
        ("--network_train_text_encoder_only", {"text_encoder_lr": 2e-5}, None, 2e-5),
        ("--network_train_text_encoder_only", {"text_encoder_lr": 0, "learning_rate": 3e-4}, None, 3e-4),
    ],
)
def test_one_part_alone(
    load: Load, words: str, keys: dict[str, object], unet: float | None, text_encoder: float | None
) -> None:
    preset = preset_of(load, words, **keys)
    assert (preset.unet_rate, preset.text_encoder_rate) == (unet, text_encoder)


def test_an_argument_comes_before_the_key_and_says_so(load: Load) -> None:
    loaded = load(
        seed=1, lr_warmup=0, additional_parameters="--max_grad_norm 2 --seed=1 --keep_tokens 0", max_grad_norm=1
    )
    assert loaded.preset.max_grad_norm == 2.0  # type: ignore[attr-defined]
    assert loaded.notes == ("max_grad_norm: --max_grad_norm in additional_parameters comes before 1",)


def test_an_override_comes_before_both(load: Load) -> None:
    words = "--max_grad_norm 2 --train_batch_size 3 --torch_compile"
    loaded = load(["max_grad_norm=3"], seed=1, lr_warmup=0, additional_parameters=words, max_grad_norm=1)
    assert (loaded.preset.max_grad_norm, loaded.preset.train_batch_size) == (3.0, 3)  # type: ignore[attr-defined]
    assert loaded.preset.torch_compile  # type: ignore[attr-defined]
    assert loaded.notes == ("additional_parameters: --set max_grad_norm comes before --max_grad_norm",)


def test_what_does_nothing_is_listed_with_its_reason(load: Load) -> None:
    loaded = load(additional_parameters="--log_prefix=mine --ddp_timeout 30 --lowram")
    assert loaded.inert == {
        "lowvram": "memory is handled without it",
        "additional_parameters --log_prefix": "the logs of a run have the name of output_name, and log_tracker_name "
        "around it",
        "additional_parameters --ddp_timeout": "the processes of a run are set up without it",
    }


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--max_gard_norm 3", ": --max_gard_norm is no argument of sd-scripts; did you mean --max_grad_norm?"),
        ("--max-grad-norm 3", ": --max-grad-norm is no argument of sd-scripts; did you mean --max_grad_norm?"),
        ("--qqq", ": --qqq is no argument of sd-scripts"),
        ("7 8 --flip_aug", ': "7 8" stands before the first argument; write --name value'),
        ("--flip_aug true", ': --flip_aug takes no value; remove "true"'),
        ("--keep_tokens", ": --keep_tokens takes one value, found none; put a value with blanks in quotes"),
        ("--output_name a b", ': --output_name takes one value, found "a b"; put a value with blanks in quotes'),
        ("--optimizer_args", ": --optimizer_args needs at least one value"),
        ("--noise_offset 7", ' --noise_offset: found "7"; write a number from 0 to 1'),
        ("--optimizer_type AdamV", ' --optimizer_type: found "AdamV"; write '),
        ("--base_weights a.st b.st", ": --base_weights is not supported: merge these LoRAs into the base model first: "
                                     "python -m tools.merge_lora"),
        ("--network_args conv_dm=3",
         ": --network_args: conv_dm is no option of the layers here; did you mean conv_dim?"),
        ("--network_args 3", ': --network_args: "3" is not of the form name=value'),
        ("--network_args algo=abba", ": --network_args: algo=abba is not supported; write a LoRA_type, such as "),
        ("--network_module networks.oft", ": --network_module networks.oft is not supported; write a LoRA_type"),
        ("--network_train_unet_only --network_train_text_encoder_only",
         ": --network_train_unet_only and --network_train_text_encoder_only leave nothing to train"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named_with_its_cure(problems: Problems, words: str, problem: str) -> None:
    (found,) = problems(additional_parameters=words)
    assert found.startswith(PLACE + problem)


def test_all_that_is_wrong_comes_at_once(problems: Problems) -> None:
    assert len(problems(additional_parameters="--qqq --flip_aug 1 --keep_tokens --noise_offset 7", v2=2)) == 5


def test_a_rule_names_the_argument_that_it_is_about(problems: Problems) -> None:
    assert problems(additional_parameters="--min_timestep 900 --max_timestep 100") == [
        f"{PLACE} --min_timestep: 900 must not be more than max_timestep, 100"
    ]


def test_a_secret_in_it_is_never_shown(load: Load) -> None:
    words = "--wandb_api_key=S3CRET --huggingface_token S3CRET"
    for loaded in (load(additional_parameters=words), load([f"additional_parameters={words}"])):
        preset = loaded.preset
        assert preset.wandb_api_key.get_secret_value() == "S3CRET"
        assert "S3CRET" not in repr(loaded) + str(loaded.given) + str(loaded.notes)


def test_what_was_trained_is_the_same_however_it_is_written(load: Load) -> None:
    written = load(noise_offset=0.1, network_dim=4, seed=3).steps_fingerprint()
    assert load(additional_parameters="--noise_offset 0.1 --network_dim 4 --seed 3").steps_fingerprint() == written


def test_the_tables_name_keys_and_nothing_twice() -> None:
    keys = keys_of(LoraPreset)
    assert not [name for name in (*SAME, *RENAMED.values(), *NETWORK_KEYS.values()) if name not in keys]
    assert not [key for flag in FLAGS.values() for key in flag if key not in keys]
    tables = [set(SAME), set(RENAMED), set(FLAGS), set(IDLE), set(REFUSED)]
    assert sum(map(len, tables)) == len(set.union(*tables))


@pytest.mark.parametrize("name", SAME)
def test_each_argument_takes_what_its_key_takes(name: str) -> None:
    key = keys_of(LoraPreset)[name]
    default = default_as_written(key)
    words = [f"--{name}"] if key.annotation == Switch else [f"--{name}", str(default or "a=1")]
    given, problems = read_words(words)
    assert problems == []
    meaning = meaning_of(given)
    assert (next(iter(meaning.keys)), meaning.problems) == (name, [])
