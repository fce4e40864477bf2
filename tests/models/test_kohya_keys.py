"""The names and shapes of LoRA files against lists that sd-scripts made from the full-size models."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lora_trainer.errors import Refusal
from lora_trainer.models.adapters.layer import Dropouts, LayerPlan
from lora_trainer.models.adapters.network import add_adapter
from lora_trainer.models.adapters.targets import lora_targets
from lora_trainer.models.base_configs import published_configs
from lora_trainer.models.kohya_keys import by_kohya_name, by_module_path, kohya_names
from tests.models.standard_lora import add_lora, lora_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "kohya_layers.txt.gz"  # lines: case, name, down's shape, up's shape

TEXT_ENCODERS = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}

CASES = {  # the kind, and what differs from the published UNet
    "sd15": ("sd15", {}),
    "sd2_linear_proj": ("sd21", {}),
    "sd2_conv1x1_proj": ("sd21", {"use_linear_projection": False}),
    "sdxl": ("sdxl", {}),
}


def golden(case: str) -> dict[str, tuple[str, str]]:
    lines = [line.split() for line in gzip.decompress(GOLDEN.read_bytes()).decode().splitlines()]
    return {name: (down, up) for of_case, name, down, up in lines if of_case == case}


def full_size(case: str) -> dict[str, nn.Module]:
    """The models of a case without their weights."""
    kind, changes = CASES[case]
    configs = published_configs(kind)
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {"unet": UNet2DConditionModel.from_config({**configs["unet"], **changes})}
        for part, model in TEXT_ENCODERS.items():
            if part in configs:
                parts[part] = model(CLIPTextConfig(**configs[part]))
    return parts


def shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape))


@pytest.mark.parametrize(
    ("case", "layers"), [("sd15", 264), ("sd2_linear_proj", 330), ("sd2_conv1x1_proj", 330), ("sdxl", 986)]
)
def test_names_and_shapes_are_those_of_sd_scripts(case: str, layers: int) -> None:
    kind, _ = CASES[case]
    models = full_size(case)
    names = {
        part: kohya_names(kind, part, lora_targets(model), models["unet"].config) for part, model in models.items()
    }
    for part, model in models.items():
        add_lora(model, names[part], rank=8, alpha=1, seed=0)

    exported = by_kohya_name(names, {part: lora_weights(model) for part, model in models.items()})

    assert len(exported) == layers
    assert {name: (shape(layer.down), shape(layer.up)) for name, layer in exported.items()} == golden(case)


@pytest.mark.parametrize(("case", "layers"), [("sd15", 350), ("sdxl", 1052)])
def test_locon_has_the_layers_of_sd_scripts(case: str, layers: int) -> None:
    kind, _ = CASES[case]
    exported = {}
    for part, model in full_size(case).items():
        targets = lora_targets(model, convolutions=True)
        names = kohya_names(kind, part, targets, published_configs(kind)["unet"])
        plans = {
            path: LayerPlan(names[path], "lora", 4 if target.is_wide else 8, 1.0) for path, target in targets.items()
        }
        add_adapter(model, plans, Dropouts(), seed=0)
        exported |= {names[path]: layer for path, layer in lora_weights(model).items()}
    assert len(exported) == layers
    shapes = {name: (shape(layer.down), shape(layer.up)) for name, layer in exported.items()}
    assert shapes == golden(case) | golden(f"{case}_conv4")


@pytest.mark.parametrize("path", ["encoder.layers.3.mlp.fc1", "text_model.encoder.layers.3.mlp.fc1"])
def test_text_encoder_names_are_the_same_with_and_without_the_level_text_model(path: str) -> None:
    inner = "text_model_encoder_layers_3_mlp_fc1"
    assert kohya_names("sd15", "text_encoder", [path], {}) == {path: f"lora_te_{inner}"}
    assert kohya_names("sd21", "text_encoder", [path], {}) == {path: f"lora_te_{inner}"}
    assert kohya_names("sdxl", "text_encoder", [path], {}) == {path: f"lora_te1_{inner}"}
    assert kohya_names("sdxl", "text_encoder_2", [path], {}) == {path: f"lora_te2_{inner}"}


def test_every_name_is_one_that_comfyui_and_forge_look_for() -> None:
    text = r"text_model_encoder_layers_([0-9]|[12][0-9]|3[01])_(mlp_fc[12]|self_attn_(q|k|v|out)_proj)"
    block = r"(proj_in|proj_out|transformer_blocks_\d+_(attn[12]_to_(q|k|v|out_0)|ff_net_(0_proj|2)))"
    ldm_unet = rf"((input|output)_blocks_\d+_1|middle_block_1)_{block}"
    diffusers_unet = rf"((down|up)_blocks_\d_attentions_\d|mid_block_attentions_0)_{block}"
    understood = {
        "sdxl": rf"lora_unet_{ldm_unet}|lora_te[12]_{text}",
        "sd15": rf"lora_unet_{diffusers_unet}|lora_te_{text}",
        "sd2_linear_proj": rf"lora_unet_{diffusers_unet}|lora_te_{text}",
    }
    for case, pattern in understood.items():
        kind, _ = CASES[case]
        models = full_size(case)
        for part, model in models.items():
            for name in kohya_names(kind, part, lora_targets(model), models["unet"].config).values():
                assert re.fullmatch(pattern, name), name


def test_a_file_finds_its_way_back_to_the_layers() -> None:
    names = {"unet": {"a.b": "lora_unet_a_b"}, "text_encoder": {"a.b": "lora_te_a_b", "c": "lora_te_c"}}
    values = {"unet": {"a.b": 1}, "text_encoder": {"a.b": 2}}

    in_file = by_kohya_name(names, values)

    assert in_file == {"lora_unet_a_b": 1, "lora_te_a_b": 2}
    assert by_module_path(names, in_file) == values


def test_a_file_for_another_base_is_refused() -> None:
    names = {"unet": {"a.b": "lora_unet_a_b"}}
    with pytest.raises(Refusal, match="has 2 layers that this base model does not have, for example lora_te1_c"):
        by_module_path(names, {"lora_unet_a_b": 1, "lora_te1_c": 2, "lora_te2_c": 3})
