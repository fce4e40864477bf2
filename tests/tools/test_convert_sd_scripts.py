"""What starts sd-scripts becomes a preset that trains the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.reader import load_preset
from lora_trainer.config.setting import keys_of
from tests.config.gui_presets import OF_2025, PRODIGY, SD15, Preset
from tools.convert_preset import main

REQUIRED = {
    "pretrained_model_name_or_path": "C:\\models\\base model.safetensors",
    "train_data_dir": "data/mine",
    "output_dir": "out/mine",
    "output_name": "mine",
    "resolution": "768,768",
    "network_module": "networks.lora",
}
Convert = Callable[..., tuple[LoraPreset, dict[str, Any]]]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Convert a text and load what comes of it."""

    def converted(text: str, *more: str, name: str = "mine.toml") -> tuple[LoraPreset, dict[str, Any]]:
        source, target = tmp_path / name, tmp_path / "neu" / "mine.json"
        source.write_text(text, encoding="utf-8")
        assert main([str(source), str(target), *more]) == 0
        preset = load_preset(target).preset
        assert isinstance(preset, LoraPreset)
        return preset, json.loads(target.read_text(encoding="utf-8"))

    return converted


def toml(values: dict[str, Any]) -> str:
    """TOML writes these values as JSON does."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def test_what_sd_scripts_does_without_being_told(convert: Convert) -> None:
    preset, _ = convert(toml(REQUIRED))
    expected = {
        "sdxl": False, "max_resolution": (768, 768), "LoRA_type": "Standard", "network_dim": 4, "network_alpha": 1.0,
        "unet_rate": 2e-6, "text_encoder_rate": 2e-6, "optimizer": "AdamW", "lr_scheduler": "constant",
        "lr_warmup": 0.0, "max_train_steps": 1600, "mixed_precision": "no", "save_precision": "float",
        "save_every_n_epochs": 0, "caption_extension": ".caption", "enable_bucket": False, "cache_latents": False,
        "xformers": "none", "pretrained_model_name_or_path": REQUIRED[
            "pretrained_model_name_or_path"],
    }  # fmt: skip
    assert {key: getattr(preset, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"learning_rate": 1e-4}, {"unet_rate": 1e-4, "text_encoder_rate": 1e-4}),
        ({"learning_rate": 1e-4, "text_encoder_lr": [1e-5, 1e-5]}, {"unet_rate": 1e-4, "text_encoder_rate": 1e-5}),
        ({"learning_rate": 1e-4, "network_train_unet_only": True}, {"unet_rate": 1e-4, "text_encoder_rate": None}),
        ({"learning_rate": 1e-4, "network_train_text_encoder_only": True},
         {"unet_rate": None, "text_encoder_rate": 1e-4}),
        ({"enable_bucket": True}, {"bucket_no_upscale": False, "max_bucket_reso": 1024}),
        ({"max_train_epochs": 7}, {"max_train_epochs": 7, "max_train_steps": 0}),
        ({"lr_scheduler": "cosine", "lr_warmup_steps": 0.05}, {"lr_scheduler": "cosine", "lr_warmup_steps": 0.05}),
        ({"network_args": ["conv_dim=4", "conv_alpha=2"]}, {"LoRA_type": "Kohya LoCon", "conv_dim": 4}),
        ({"network_module": "lycoris.kohya", "network_args": ["algo=ia3", "train_on_input=True"]},
         {"LoRA_type": "LyCORIS/iA3", "train_on_input": True}),
        ({"network_module": "lycoris.kohya", "network_dim": 16, "network_args": ["algo=loha"]},
         {"LoRA_type": "LyCORIS/LoHa", "conv_dim": 16}),
        ({"network_module": "lycoris.kohya", "network_args": ["algo=lokr", "full_matrix=True", "wd_on_output=True"]},
         {"LoRA_type": "LyCORIS/LoKr", "network_dim": 100000}),
        ({"noise_offset": 0.05}, {"noise_offset_type": "Original", "noise_offset": 0.05}),
        ({"multires_noise_iterations": 6}, {"noise_offset_type": "Multires", "multires_noise_discount": 0.3}),
        ({"full_bf16": True, "mixed_precision": "bf16"}, {"save_precision": "bf16", "full_bf16": True}),
        ({"max_grad_norm": 0, "seed": 7, "flip_aug": False}, {"max_grad_norm": 0.0, "seed": 7, "flip_aug": False}),
        ({"sdpa": True, "xformers": False}, {"xformers": "sdpa"}),
        ({"no_half_vae": True}, {"sdxl": True, "sdxl_no_half_vae": True}),
        ({"sample_prompts": "prompts.txt", "sample_every_n_epochs": 1},
         {"sample_at_first": False, "sample_sampler": "ddim"}),
        ({"optimizer_args": ["betas=(0.9, 0.99)", "weight_decay=0.1"]},
         {"optimizer_options": {"betas": (0.9, 0.99), "weight_decay": 0.1}}),
    ],
    ids=lambda value: " ".join(value),
)  # fmt: skip
def test_arguments_and_what_follows_from_them(
    convert: Convert, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    preset, _ = convert(toml({**REQUIRED, **given}))
    assert {key: getattr(preset, key) for key in expected} == expected


def test_the_tables_of_a_file_are_one(convert: Convert) -> None:
    text = '[model]\npretrained_model_name_or_path = "a.ckpt"\n[folders]\ntrain_data_dir = "b"\noutput_dir = "c"\n'
    preset, _ = convert(text + '[rest]\noutput_name = "d"\nresolution = 512\nnetwork_dim = 8\n', "--sdxl")
    assert (preset.train_data_dir, preset.max_resolution, preset.sdxl) == ("b", (512, 512), True)


# What the GUI's command and TOML file are for a preset, as the notes on kohya_ss have it.
RENAMED = {
    "max_resolution": "resolution", "optimizer": "optimizer_type", "sdxl_no_half_vae": "no_half_vae",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
}  # fmt: skip
NOT_PASSED = {
    "sdxl", "lr_warmup", "LoRA_type", "LyCORIS_preset", "conv_dim", "conv_alpha", "xformers", "model_list", "epoch",
    "factor", "unit", "train_on_input", "rank_dropout", "module_dropout", "decompose_both", "use_cp", "constrain",
    "rescaled", "use_tucker", "use_scalar", "rank_dropout_scale", "bypass_mode", "dora_wd", "train_norm",
    "stop_text_encoder_training", "stop_text_encoder_training_pct", "num_processes", "num_machines", "multi_gpu",
    "num_cpu_threads_per_process", "gpu_ids", "main_process_port", "extra_accelerate_launch_args", "dynamo_mode",
    "dynamo_use_dynamic", "dynamo_use_fullgraph", "save_as_bool", "additional_parameters", "noise_offset_type",
}  # fmt: skip
NO_TWO_WAYS = {"epoch", "max_train_steps", "lr_warmup", "lr_warmup_steps", "num_cpu_threads_per_process", "output_name"}


def by_the_gui(preset: Preset) -> dict[str, Any]:
    given: dict[str, Any] = {}
    noise = {"Original": ("noise_offset", "adaptive_noise_scale"), "Multires": ("multires_noise_iterations",)}
    other = noise["Multires" if preset["noise_offset_type"] == "Original" else "Original"]
    for key, value in preset.items():
        if key not in NOT_PASSED and key not in other and key in keys_of(LoraPreset) and value not in ("", False, 0):
            given[RENAMED.get(key, key)] = int(value) if key.endswith("workers") else value
    given["max_data_loader_n_workers"] = int(preset["max_data_loader_n_workers"])
    given["max_train_steps"] = 400
    given["lr_warmup_steps"] = preset["lr_warmup"] / 100
    given["text_encoder_lr"] = [preset["text_encoder_lr"]] * 2
    for key in ("optimizer_args", "lr_scheduler_args"):
        given[key] = str(preset[key]).replace('"', "").split()
    if preset["xformers"] != "none":
        given[preset["xformers"]] = True
    layers = preset["LoRA_type"]
    if layers.startswith("LyCORIS/"):
        words = {"algo": layers.partition("/")[2].lower(), "preset": preset["LyCORIS_preset"]}
        words |= {key: preset[key] for key in ("conv_dim", "conv_alpha", "factor", "use_cp", "rank_dropout")}
        given |= {"network_module": "lycoris.kohya", "network_args": [f"{key}={word}" for key, word in words.items()]}
    else:
        convolutions = [f"conv_dim={preset['conv_dim']}", f"conv_alpha={preset['conv_alpha']}"]
        given |= {"network_module": "networks.lora", "network_args": convolutions if "LoCon" in layers else []}
    return given


@pytest.mark.parametrize(
    "changed",
    [
        {"conv_dim": 1, "conv_alpha": 1, "max_bucket_reso": 1536, "lr_warmup": 5, "lr_scheduler": "cosine"},
        {"LoRA_type": "LyCORIS/LoKr", "factor": 8, "use_cp": True, **PRODIGY,
         "optimizer_args": '"d_coef=2" "eps=1e-7"'},
        {**SD15, "LoRA_type": "Kohya LoCon", "clip_skip": 2, "xformers": "sdpa", "noise_offset": 0,
         "noise_offset_type": "Multires", "multires_noise_iterations": 6, "bucket_no_upscale": False},
    ],
    ids=["standard", "lokr", "locon"],
)  # fmt: skip
def test_there_and_back_again(convert: Convert, tmp_path: Path, changed: Preset) -> None:
    gui = {**OF_2025, **{key: value for key, value in REQUIRED.items() if key in OF_2025}, **changed}
    gui["multires_noise_discount"] = 0.3  # with 0 the GUI passes nothing, so that 0.3 comes back
    (tmp_path / "gui.json").write_text(json.dumps(gui), encoding="utf-8")
    written = load_preset(tmp_path / "gui.json").preset
    (tmp_path / "config_lora.toml").write_text(toml(by_the_gui(gui)), encoding="utf-8")
    script = "sdxl_train_network.py" if gui["sdxl"] else "train_network.py"
    command = f'accelerate launch --num_processes 1 "/kohya_ss/sd-scripts/{script}" --config_file config_lora.toml\n'
    preset, _ = convert(command, name="print.txt")
    for key in keys_of(LoraPreset).values():
        if key.name not in NO_TWO_WAYS:
            assert (key.name, getattr(preset, key.field)) == (key.name, getattr(written, key.field))
    assert preset.lr_warmup_steps == pytest.approx(gui["lr_warmup"] / 100)


SHELL = """\
#!/bin/bash
# python train_network.py --nothing
model="models/sd xl.safetensors"
export OUT=./out
accelerate launch --mixed_precision bf16 "./sd-scripts/sdxl_train_network.py" \\
  --pretrained_model_name_or_path="$model" --train_data_dir "${DATA}" --output_dir=$OUT --output_name foo \\
  --resolution 1024,1024 --network_module networks.lora --log_prefix=x --base_weights a.st --qqq
echo done
"""
BATCH = """\
@echo off
rem accelerate launch train_network.py --output_name wrong
set "MODEL=C:\\models\\sd xl.safetensors"
set OUT=D:\\out
accelerate launch ^
  --mixed_precision=bf16 ^
  sdxl_train_network.py --pretrained_model_name_or_path "%MODEL%" --output_dir %OUT% --train_data_dir=D:\\data ^
  --output_name foo --resolution 1024 --network_module networks.lora
pause
"""


def test_a_shell_script(convert: Convert, capsys: pytest.CaptureFixture[str]) -> None:
    preset, written = convert(SHELL, name="train.sh")
    assert (preset.sdxl, preset.mixed_precision, preset.output_dir) == (True, "bf16", "./out")
    assert preset.pretrained_model_name_or_path == "models/sd xl.safetensors"
    assert list(written)[:6] == [
        "trainer", "pretrained_model_name_or_path", "sdxl", "train_data_dir", "output_dir", "output_name",
    ]  # fmt: skip
    assert capsys.readouterr().out.splitlines()[1:] == [
        "not carried over: --log_prefix: the logs of a run have the name of output_name, and log_tracker_name around "
        "it",
        "not carried over: accelerate launch --mixed_precision bf16: starts the script; the preset is started by "
        "accelerate launch -m lora_trainer",
        "to mend: --qqq is no argument of sd-scripts",
        "to mend: --train_data_dir: nothing says what ${DATA} is; write the value",
        "to mend: --base_weights is not supported: merge these LoRAs into the base model first: python -m "
        "tools.merge_lora",
    ]


def test_a_batch_file(convert: Convert) -> None:
    preset, _ = convert(BATCH, name="train.bat")
    assert preset.pretrained_model_name_or_path == "C:\\models\\sd xl.safetensors"
    assert (preset.output_dir, preset.train_data_dir, preset.mixed_precision) == ("D:\\out", "D:\\data", "bf16")


def test_a_command_on_the_command_line(tmp_path: Path) -> None:
    words = ["accelerate", "launch", "train_network.py", *(f"--{key}={value}" for key, value in REQUIRED.items())]
    assert main([str(tmp_path / "a.json"), "--output-dir", "elsewhere", "--", *words, "--vae", "my vae.pt"]) == 0
    preset = load_preset(tmp_path / "a.json").preset
    assert isinstance(preset, LoraPreset)
    assert (preset.output_dir, preset.vae, preset.max_resolution) == ("elsewhere", "my vae.pt", (768, 768))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("accelerate launch flux_train_network.py --network_dim 4", "flux_train_network.py: trains another family"),
        ("python sdxl_train.py --learning_rate 1", "sdxl_train.py: trains no LoRA"),
        ("[[datasets]]\nresolution = 512\n", "mine.toml: describes a data set; name it in a preset's dataset_config"),
        ("a = 1\n", "mine.toml: no arguments of sd-scripts: it has no pretrained_model_name_or_path"),
        (
            '{"network_dim": 8}',
            "mine.toml: is JSON; a preset of kohya_ss, traiNNer-redux or HYPIR in JSON is read as it is",
        ),
        ("train_network.py --config_file gone", "gone.toml: cannot be read (No such file or directory)"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "mine.toml"
    source.write_text(text, encoding="utf-8")
    assert main([str(source)]) == 2
    assert problem in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))
