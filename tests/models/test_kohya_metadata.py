"""The metadata of a LoRA file against those of a file that sd-scripts wrote."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from lora_trainer import __version__
from lora_trainer.models.kohya_metadata import (
    BaseFacts,
    ClockFacts,
    DataFacts,
    FolderFacts,
    ModelHashes,
    ProgressFacts,
    lora_metadata,
    model_hashes,
    with_hashes,
)

REFERENCE = json.loads((Path(__file__).parents[1] / "golden" / "kohya_metadata.json").read_text(encoding="utf-8"))

BASE = BaseFacts(
    kind="sdxl",
    v_prediction=False,
    checkpoint=Path("/home/käthe/my models/tiny_sdxl.safetensors"),
    hashes=ModelHashes("8bfb4bdc", "7370af09f9d929ea6ae0937c9429fc82b8a6c111f362602a66ce9bbd35281ad2"),
)
TAGS = json.loads(REFERENCE["ss_tag_frequency"])
DATA = DataFacts(
    resolution_px=(128, 128),
    folders={
        "1_style": FolderFacts(repeats=1, images=3, tags=TAGS["1_style"]),
        "2_mychar girl": FolderFacts(repeats=2, images=5, tags=TAGS["2_mychar girl"]),
    },
    buckets={(128, 96): 3, (96, 128): 4, (128, 128): 4, (64, 160): 2},
    mean_bucket_error=0.04112271540469975,
)
PROGRESS = ProgressFacts(epoch=3, step=14, epochs=3, batches_per_epoch=6, total_batch_size=3)
CLOCK = ClockFacts(started_at=1795224606.5575614, finished_at=1795224657.7134075, session_id=4254868905)
SETTINGS = {
    "bucket_no_upscale": True,
    "cache_latents": True,
    "caption_dropout_every_n_epochs": 0,
    "caption_dropout_rate": 0.0,
    "caption_tag_dropout_rate": 0.0,
    "clip_skip": 2,
    "color_aug": False,
    "debiased_estimation_loss": True,
    "enable_bucket": True,
    "flip_aug": False,
    "fp8_base": False,
    "fp8_base_unet": False,
    "full_fp16": False,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
    "huber_c": 0.1,
    "huber_scale": 1.0,
    "huber_schedule": "snr",
    "ip_noise_gamma_random_strength": False,
    "keep_tokens": 5,
    "learning_rate": 0.002,
    "loss_type": "l2",
    "lowram": False,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
    "max_bucket_reso": 256,
    "max_grad_norm": 1,
    "max_token_length": 150,
    "max_train_steps": 14,
    "min_bucket_reso": 64,
    "mixed_precision": "no",
    "multires_noise_discount": 0.3,
    "network_alpha": 2,
    "network_dim": 4,
    "noise_offset": 0.0357,
    "noise_offset_random_strength": True,
    "optimizer": "torch.optim.adamw.AdamW",
    "output_name": "ref",
    "prior_loss_weight": 1,
    "random_crop": False,
    "seed": 42,
    "shuffle_caption": True,
    "text_encoder_lr": 0.001,
    "train_batch_size": 3,
    "unet_lr": 0.001,
    "validation_split": 0.0,
    "zero_terminal_snr": False,
}


def test_the_same_training_has_the_metadata_of_sd_scripts() -> None:
    ours = lora_metadata(BASE, DATA, PROGRESS, SETTINGS, CLOCK)

    theirs = {key: value for key, value in REFERENCE.items() if not key.startswith("sshs_")}
    del theirs["ss_sd_scripts_commit_hash"]
    theirs["modelspec.implementation_version"] = f"lora_trainer/{__version__}"
    assert ours == theirs
    assert list(ours) == sorted(ours)


def test_without_a_clock_nothing_depends_on_when_it_was_written() -> None:
    with_clock, without = (
        lora_metadata(BASE, DATA, PROGRESS, SETTINGS, CLOCK),
        lora_metadata(BASE, DATA, PROGRESS, SETTINGS),
    )

    assert with_clock.keys() - without.keys() == {
        "ss_training_started_at",
        "ss_training_finished_at",
        "ss_session_id",
        "modelspec.date",
    }
    assert without.items() <= with_clock.items()


@pytest.mark.parametrize(
    ("kind", "v_prediction", "version", "v2", "architecture", "prediction", "implementation"),
    [
        ("sd15", False, "sd_v1", "False", "stable-diffusion-v1/lora", "epsilon", "diffusers"),
        ("sd21", False, "sd_v2", "True", "stable-diffusion-v2-512/lora", "epsilon", "diffusers"),
        ("sd21", True, "sd_v2_v", "True", "stable-diffusion-v2-768-v/lora", "v", "diffusers"),
        (
            "sdxl",
            True,
            "sdxl_base_v1-0",
            "False",
            "stable-diffusion-xl-v1-base/lora",
            "v",
            "https://github.com/Stability-AI/generative-models",
        ),
    ],
)
def test_the_base_is_named_as_readers_expect(
    kind: str, v_prediction: bool, version: str, v2: str, architecture: str, prediction: str, implementation: str
) -> None:
    entries = lora_metadata(replace(BASE, kind=kind, v_prediction=v_prediction), DATA, PROGRESS, SETTINGS)

    assert entries["ss_base_model_version"] == version
    assert entries["ss_v2"] == v2
    assert entries["modelspec.architecture"] == architecture
    assert entries["modelspec.prediction_type"] == prediction
    assert entries["modelspec.implementation"] == implementation


def test_width_comes_first_in_the_file() -> None:
    wide = replace(DATA, resolution_px=(512, 768), buckets={(448, 832): 7})
    entries = lora_metadata(BASE, wide, PROGRESS, SETTINGS)

    assert entries["ss_resolution"] == "(768, 512)"
    assert entries["modelspec.resolution"] == "768x512"
    assert json.loads(entries["ss_bucket_info"])["buckets"] == {"0": {"resolution": [832, 448], "count": 7}}


def test_optional_settings_appear_only_when_given() -> None:
    plain = lora_metadata(BASE, DATA, PROGRESS, {**SETTINGS, "clip_skip": None, "metadata_author": ""})
    given = {"metadata_title": "Käthe", "metadata_author": "K.", "network_args": {"conv_dim": "4"}, "min_timestep": 100}
    full = lora_metadata(BASE, DATA, PROGRESS, {**SETTINGS, **given})

    assert {"modelspec.author", "modelspec.encoder_layer", "ss_network_args"}.isdisjoint(plain)
    assert plain["ss_clip_skip"] == "None"
    assert full["modelspec.title"] == "Käthe"
    assert full["modelspec.author"] == "K."
    assert full["ss_network_args"] == '{"conv_dim": "4"}'
    assert full["modelspec.timestep_range"] == "100,1000"


def test_no_key_and_no_folder_gets_into_the_file() -> None:
    base = replace(BASE, vae=Path("/home/käthe/vae.safetensors"), vae_hashes=ModelHashes("0" * 8, "1" * 64))
    private = {
        "wandb_api_key": "top-secret",
        "huggingface_token": "top-secret",
        "output_dir": "/home/käthe/out",
        "train_data_dir": "/home/käthe/img",
        "pretrained_model_name_or_path": "/home/käthe/my models/tiny_sdxl.safetensors",
        "network_weights": "/home/käthe/old.safetensors",
    }
    entries = lora_metadata(base, DATA, PROGRESS, {**SETTINGS, **private})

    assert entries["ss_vae_name"] == "vae.safetensors"
    assert entries["ss_new_vae_hash"] == "1" * 64
    assert "top-secret" not in json.dumps(entries)
    assert "/home" not in json.dumps(entries)


def test_the_models_hash_does_not_depend_on_the_metadata() -> None:
    tensors = {"b": torch.arange(6.0), "a": torch.ones(2, 2)}
    one, two = with_hashes(tensors, {"ss_seed": "1"}), with_hashes(tensors, {"ss_seed": "2", "modelspec.title": "t"})

    written = save(tensors, {"anything": "else"})
    body = written[8 + int.from_bytes(written[:8], "little") :]
    assert one["sshs_model_hash"] == two["sshs_model_hash"] == hashlib.sha256(body).hexdigest()
    assert one["sshs_legacy_hash"] == "e3b0c442"  # as of every file below 1 MiB
    assert one["ss_seed"] == "1"


def test_the_legacy_hash_is_of_the_file_with_training_metadata_only() -> None:
    tensors = {"a": torch.arange(300_000.0)}
    plain = with_hashes(tensors, {"ss_seed": "1"})["sshs_legacy_hash"]

    assert with_hashes(tensors, {"ss_seed": "1", "modelspec.title": "t"})["sshs_legacy_hash"] == plain
    window = save(tensors, {"ss_seed": "1"})[0x100000:0x110000]  # one entry, so that its order cannot differ
    assert hashlib.sha256(window).hexdigest()[:8] == plain


def test_the_hashes_of_a_checkpoint(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4400  # 1.07 MiB
    checkpoint = tmp_path / "größe 模型.ckpt"
    checkpoint.write_bytes(data)

    assert model_hashes(checkpoint) == ModelHashes(
        hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8], hashlib.sha256(data).hexdigest()
    )
    assert model_hashes(tmp_path) is None
