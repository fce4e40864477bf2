"""The maps between diffusers' and LDM's module names cover each model exactly, and give the published names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from lora_trainer.models.architectures import build_unet, build_vae
from lora_trainer.models.base_configs import KINDS, published_configs
from lora_trainer.models.ldm_keys import unet_module_map, vae_attention_modules, vae_module_map


def _modules_with_parameters(model: nn.Module) -> set[str]:
    return {path for path, module in model.named_modules() if list(module.parameters(recurse=False))}


def _assert_one_to_one(model: Any, modules: dict[str, str]) -> None:
    assert set(modules) == _modules_with_parameters(model)
    assert len(set(modules.values())) == len(modules)


@pytest.mark.parametrize("kind", KINDS)
def test_every_module_of_the_published_models_has_one_name(kind: str) -> None:
    configs = published_configs(kind)  # type: ignore[arg-type]
    with torch.device("meta"):
        unet, vae = build_unet(configs["unet"]), build_vae(configs["vae"])
    _assert_one_to_one(unet, unet_module_map(configs["unet"]))
    _assert_one_to_one(vae, vae_module_map(configs["vae"]))


def test_an_unusual_unet_is_covered_from_its_full_config_as_well() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(8, 16, 16, 24, 40),
            down_block_types=(
                "CrossAttnDownBlock2D",
                "DownBlock2D",
                "CrossAttnDownBlock2D",
                "DownBlock2D",
                "DownBlock2D",
            ),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            layers_per_block=(1, 3, 2, 2, 1),
            transformer_layers_per_block=(1, 2, 3, 1, 4),
            attention_head_dim=4,
            cross_attention_dim=12,
            norm_num_groups=4,
        )
    modules = unet_module_map(unet.config)
    _assert_one_to_one(unet, modules)
    assert modules["up_blocks.0.upsamplers.0.conv"] == "output_blocks.1.1.conv"  # without attention in the block
    assert (
        modules["mid_block.attentions.0.transformer_blocks.3.ff.net.2"]
        == "middle_block.1.transformer_blocks.3.ff.net.2"
    )


def test_an_unusual_vae_is_covered() -> None:
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 16),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=4,
            use_quant_conv=False,
            use_post_quant_conv=False,
            mid_block_add_attention=False,
        )
    _assert_one_to_one(vae, vae_module_map(vae.config))
    assert vae_attention_modules(vae.config) == frozenset()


# ours, in the published checkpoints
SDXL_NAMES = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": "input_blocks.4.1.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.4.0.skip_connection",
    "down_blocks.2.attentions.1.transformer_blocks.9.norm3": "input_blocks.8.1.transformer_blocks.9.norm3",
    "mid_block.resnets.1.time_emb_proj": "middle_block.2.emb_layers.1",
    "up_blocks.0.attentions.2.proj_in": "output_blocks.2.1.proj_in",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
    "up_blocks.2.resnets.2.conv2": "output_blocks.8.0.out_layers.3",
    "conv_out": "out.2",
}
SD15_NAMES = {
    "down_blocks.0.attentions.0.proj_in": "input_blocks.1.1.proj_in",
    "down_blocks.3.resnets.1.norm1": "input_blocks.11.0.in_layers.0",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
    "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.2": "output_blocks.11.1.transformer_blocks.0.ff.net.2",
}
VAE_NAMES = {
    "encoder.down_blocks.2.downsamplers.0.conv": "encoder.down.2.downsample.conv",
    "encoder.mid_block.attentions.0.to_out.0": "encoder.mid.attn_1.proj_out",
    "decoder.up_blocks.0.resnets.1.conv1": "decoder.up.3.block.1.conv1",
    "decoder.up_blocks.2.resnets.0.conv_shortcut": "decoder.up.1.block.0.nin_shortcut",
    "decoder.up_blocks.2.upsamplers.0.conv": "decoder.up.1.upsample.conv",
    "post_quant_conv": "post_quant_conv",
}


def test_names_are_the_published_ones() -> None:
    assert unet_module_map(published_configs("sdxl")["unet"]).items() >= SDXL_NAMES.items()
    assert unet_module_map(published_configs("sd15")["unet"]).items() >= SD15_NAMES.items()
    assert vae_module_map(published_configs("sdxl")["vae"]).items() >= VAE_NAMES.items()
    assert "add_embedding.linear_1" not in unet_module_map(published_configs("sd15")["unet"])


def test_the_vae_has_eight_projections_that_change_their_shape() -> None:
    halves, letters = ("encoder", "decoder"), ("q", "k", "v", "proj_out")
    expected = {f"{half}.mid.attn_1.{letter}" for half in halves for letter in letters}
    assert vae_attention_modules(published_configs("sd15")["vae"]) == expected
