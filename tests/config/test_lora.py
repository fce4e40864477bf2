"""What follows from the keys of a LoRA preset."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.reader import Loaded

Load = Callable[..., Loaded]


def _preset(load: Load, **keys: object) -> LoraPreset:
    preset = load(**keys).preset
    assert isinstance(preset, LoraPreset)
    return preset


@pytest.mark.parametrize(
    ("keys", "unet", "text_encoder"),
    [
        ({"unet_lr": 3e-4, "text_encoder_lr": 5e-5}, 3e-4, 5e-5),
        ({"unet_lr": 0, "text_encoder_lr": 5e-5}, None, 5e-5),
        ({"unet_lr": 3e-4, "text_encoder_lr": 0}, 3e-4, None),
        ({"unet_lr": 0, "text_encoder_lr": 0, "learning_rate": 2e-4}, 2e-4, 2e-4),
        ({"unet_lr": "", "text_encoder_lr": "", "learning_rate": 2e-4}, 2e-4, 2e-4),
        ({"unet_lr": 0.5, "text_encoder_lr": 0, "optimizer": "Prodigy"}, 1.0, None),
        ({"optimizer": "Adafactor"}, 1.0, 1.0),
        ({"optimizer": "Adafactor", "optimizer_args": "relative_step=False"}, 1e-4, 1e-4),
        ({"optimizer": "Lion"}, 1e-4, 1e-4),
    ],
)
def test_effective_rates(load: Load, keys: dict[str, object], unet: float | None, text_encoder: float | None) -> None:
    preset = _preset(load, **keys)
    assert (preset.unet_rate, preset.text_encoder_rate) == (unet, text_encoder)


def test_sizes_are_height_first(load: Load) -> None:
    assert _preset(load, max_resolution="1024,768").resolution_px == (768, 1024)


def test_an_alpha_of_zero_is_the_rank(load: Load) -> None:
    assert _preset(load, network_alpha=0, network_dim=16).effective_network_alpha == 16.0
    assert _preset(load, network_alpha=4, network_dim=16).effective_network_alpha == 4.0


def test_options_by_name(load: Load) -> None:
    preset = _preset(load, optimizer_args='"betas=0.9,0.99" weight_decay=0.1')
    assert preset.optimizer_options == {"betas": (0.9, 0.99), "weight_decay": 0.1}
    assert preset.lr_scheduler_options == {}


@pytest.mark.parametrize(
    ("keys", "kernel"),
    [
        ({}, "xformers"),
        ({"xformers": False}, "none"),
        ({"xformers": "none", "mem_eff_attn": True}, "sdpa"),
        ({"xformers": "sdpa", "mem_eff_attn": True}, "sdpa"),
    ],
)
def test_the_attention_kernel(load: Load, keys: dict[str, object], kernel: str) -> None:
    assert _preset(load, **keys).attention_kernel == kernel


def test_a_disk_cache_is_a_cache(load: Load) -> None:
    assert _preset(load, cache_latents=False, cache_latents_to_disk=True).caches_latents
    assert not _preset(load, cache_latents=False).caches_latents
