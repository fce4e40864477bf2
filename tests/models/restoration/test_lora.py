"""The LoRA covers the published layers of Stable Diffusion 2.1 and begins as it is published."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.config.restoration_model import LORA_MODULES as MODULES
from lora_trainer.errors import Refusal
from lora_trainer.models.architectures import build_unet
from lora_trainer.models.base_configs import published_configs
from lora_trainer.models.restoration.checkpoint import lora_parameters
from lora_trainer.models.restoration.lora import add_restoration_lora, lora_paths
from lora_trainer.models.tiny_models import tiny_configs


def test_the_published_layers_and_weights_at_rank_256() -> None:
    with torch.device("meta"):
        unet = build_unet(published_configs("sd21")["unet"])
    assert sum(weight.numel() for weight in unet.parameters()) == 865_910_724
    paths = lora_paths(unet, MODULES, "lora_modules")
    assert len(paths) == 257
    assert not [path for path in paths if path == "conv_in" or "time_emb" in path]
    add_restoration_lora(unet, paths, 256, seed=0)
    weights = lora_parameters(unet)
    assert len(weights) == 2 * 257
    assert sum(weight.numel() for weight in weights.values()) == 259_474_432
    assert {name for name, weight in unet.named_parameters() if weight.requires_grad} == set(weights)


def test_down_is_normal_up_is_zero_and_both_follow_from_the_seed() -> None:
    def weights(seed: int) -> dict[str, torch.nn.Parameter]:
        torch.manual_seed(seed * 100)
        unet = build_unet(tiny_configs("sd21")["unet"])
        add_restoration_lora(unet, lora_paths(unet, ("conv_out", "to_q"), "lora_modules"), 16, seed)
        return lora_parameters(unet)

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    downs = [name for name in first if ".lora_A." in name]
    assert not any(torch.equal(first[name], other[name]) for name in downs)
    assert all(not first[name].any() for name in first if ".lora_B." in name)
    together = torch.cat([first[name].detach().flatten() for name in downs])
    assert float(together.std()) == pytest.approx(1 / 16, rel=0.03)
    assert float(together.mean()) == pytest.approx(0, abs=0.002)
    assert {weight.dtype for weight in first.values()} == {torch.float32}


def test_a_fresh_lora_changes_nothing() -> None:
    torch.manual_seed(0)
    unet = build_unet(tiny_configs("sd21")["unet"]).eval()
    latents, texts = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 40)
    before = unet(latents, 200, texts).sample
    add_restoration_lora(unet, lora_paths(unet, MODULES, "lora_modules"), 4, seed=0)
    assert torch.equal(unet(latents, 200, texts).sample, before)


def test_names_of_no_layer_are_refused_all_at_once() -> None:
    with torch.device("meta"):
        unet = build_unet(tiny_configs("sd21")["unet"])
    with pytest.raises(Refusal) as refusal:
        lora_paths(unet, ("to_k", "to_kk", "norm1", "v"), "lora_modules")
    assert [problem.partition(";")[0] for problem in refusal.value.problems] == [
        f"lora_modules: the UNet has no linear layer and no convolution named {name}"
        for name in ("to_kk", "norm1", "v")
    ]
    assert refusal.value.problems[0].endswith("; did you mean to_k?")
