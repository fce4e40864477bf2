"""What the keys of a VAE's training say to each other, and to those of the UNet and the text encoders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.config.problems import PresetError
from lora_trainer.config.reader import Loaded, load_preset

Load = Callable[..., Loaded]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def read(**keys: Any) -> Loaded:
        path = tmp_path / "preset.json"
        required = {"trainer": "finetune", "resume_ckpt": "base", "data_root": "input"}
        path.write_text(json.dumps({**required, **keys}), encoding="utf-8")
        return load_preset(path)

    return read


VAE = {"train_vae": True, "mixed_precision": "bf16"}


@pytest.mark.parametrize(
    ("keys", "idle"),
    [
        ({"vae_crop_px": 64, "vae_l1_weight": 2}, {"vae_crop_px", "vae_l1_weight"}),
        ({"train_vae": False, "vae_crop_px": 256}, set()),  # the default
        (
            {**VAE, "cond_dropout": 0.1, "shuffle_tags": True, "clip_skip": 2, "min_snr_gamma": 5, "loss_type": "mse",
             "zero_frequency_noise_ratio": 0, "timestep_start": 5, "text_encoder_lr": 1e-6, "freeze_embeddings": True,
             "cache_latents": True, "attn_type": "xformers", "disable_unet_training": True,
             "disable_textenc_training": True, "sample_prompts": "prompts.txt"},
            {"cond_dropout", "shuffle_tags", "clip_skip", "min_snr_gamma", "loss_type", "zero_frequency_noise_ratio",
             "timestep_start", "text_encoder_lr", "freeze_embeddings", "cache_latents", "attn_type",
             "disable_unet_training", "disable_textenc_training", "sample_prompts"},
        ),
        ({**VAE, "flip_p": 0.5, "sample_steps": 9, "lr": 1e-4, "ema_decay_rate": 0.9, "clip_grad_norm": 1}, set()),
        (
            {**VAE, "vae_decoder_only": True, "vae_kl_weight": 1, "vae_kl_warmup_steps": 5, "vae_unit_latents": False},
            {"vae_kl_weight", "vae_kl_warmup_steps", "vae_unit_latents"},
        ),
        ({**VAE, "vae_kl_weight": 0, "vae_kl_warmup_steps": 5}, {"vae_kl_warmup_steps"}),
    ],
)  # fmt: skip
def test_a_key_that_does_nothing_is_told(load: Load, keys: dict[str, Any], idle: set[str]) -> None:
    assert set(load(**keys).inert) == idle


def test_why_a_key_does_nothing(load: Load) -> None:
    assert load(**VAE, clip_skip=2).inert == {"clip_skip": "the VAE alone is trained"}
    assert load(vae_hue_p=0.1).inert == {"vae_hue_p": "train_vae is off"}


def test_nothing_to_learn_is_refused(load: Load) -> None:
    weights = dict.fromkeys((f"vae_{name}_weight" for name in ("l1", "mse", "gradient", "pooled", "chroma")), 0)
    with pytest.raises(PresetError, match=r"vae_l1_weight: 0 leaves nothing to learn, as do vae_mse_weight"):
        load(**VAE, **weights)
    assert load(**VAE, **{**weights, "vae_mse_weight": 1}).inert == {}


def test_a_part_has_whole_latent_pixels(load: Load) -> None:
    with pytest.raises(PresetError, match=r"vae_crop_px: found 100; write a whole number that is a multiple of 8"):
        load(**VAE, vae_crop_px=100)


def test_fp16_is_bf16_for_a_vae(load: Load) -> None:
    loaded = load(train_vae=True, mixed_precision="fp16")
    assert cast(FinetunePreset, loaded.preset).number_format == "bf16"
    assert "mixed_precision: a VAE's numbers become too large for fp16, so that it is trained in bf16" in loaded.notes
    off = load(train_vae=True, disable_amp=True, mixed_precision="fp16")
    assert cast(FinetunePreset, off.preset).number_format == "no"
    assert not [note for note in off.notes if "fp16" in note]


def test_a_vae_has_a_rate_of_its_own(load: Load) -> None:
    preset = cast(FinetunePreset, load(**VAE).preset)
    assert preset.vae_rate(4) == 1e-5
    assert (preset.unet_rate(4), preset.text_encoder_rate(4)) == (None, None)
    assert cast(FinetunePreset, load(**VAE, lr=2e-3).preset).vae_rate(4) == 2e-3
    found = load(**VAE, lr=2e-3, optimizer="Prodigy")
    assert cast(FinetunePreset, found.preset).vae_rate(4) == 1.0
    assert "lr: 0.002 is read as 1.0: the optimizer finds the rate itself" in found.notes


def test_the_folder_of_runs_is_read_where_the_last_model_is_looked_for(load: Load) -> None:
    keys = {"output_dir": "here", "logdir": "elsewhere"}
    assert "logdir" in load(**keys).inert
    assert "logdir" not in load(**keys, resume_ckpt="FindLast").inert
