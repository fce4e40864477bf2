"""Converting LoRAs between the names of kohya and of diffusers: nothing is lost, and diffusers loads the result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_trainer.models.adapter_delta import changed_weight
from lora_trainer.models.adapter_file import AdapterFile, FileLayer, read_adapter_file, write_adapter_file
from lora_trainer.models.adapter_names import PEFT_CONFIG, diffusers_layer, layer_places
from lora_trainer.models.base_weights import open_base
from tools.convert_lora import main

TinyPath = Callable[..., Path]
RandomLora = Callable[..., Path]


def convert(source: Path, to: str, output: Path, *words: str) -> int:
    return main([str(source), "--to", to, "--output", str(output), *words])


def fused(kind: str, folder: Path, lora: Path) -> dict[str, dict[str, Tensor]]:
    """The weights of a pipeline after diffusers has merged a file into them."""
    pipeline = StableDiffusionXLPipeline if kind == "sdxl" else StableDiffusionPipeline
    loaded = pipeline.from_pretrained(folder, torch_dtype=torch.float32)
    parts = [part for part in ("unet", "text_encoder", "text_encoder_2") if hasattr(loaded, part)]
    loaded.load_lora_weights(lora)
    loaded.fuse_lora(components=parts)
    loaded.unload_lora_weights()
    return {part: getattr(loaded, part).state_dict() for part in parts}


def check(kind: str, folder: Path, found: dict[str, dict[str, Tensor]], layers: dict[str, FileLayer]) -> None:
    """Whether these are the base's weights with every layer's change."""
    places = layer_places(kind)
    with open_base(folder) as base:
        for name, layer in layers.items():
            place = places[name]
            expected = changed_weight(name, layer, base.read(place).float(), 1.0)
            level = "text_model." if f"text_model.{place.path}.weight" in found[place.part] else ""
            torch.testing.assert_close(found[place.part][f"{level}{place.path}.weight"], expected, rtol=0, atol=2e-6)


def with_other_alphas(path: Path) -> AdapterFile:
    """Every third layer with another alpha and rank, as block weights make them."""
    file = read_adapter_file(path)
    for number, (name, layer) in enumerate(list(file.layers.items())):
        if number % 3 == 0:
            tensors = dict(layer.tensors)
            tensors["lora_up.weight"] = tensors["lora_up.weight"][:, :3].contiguous()
            tensors["lora_down.weight"] = tensors["lora_down.weight"][:3].contiguous()
            tensors["alpha"] = torch.tensor(1 + number / 7)
            file.layers[name] = FileLayer("lora", tensors)
    write_adapter_file(path, file.layers, None, file.metadata)
    return read_adapter_file(path)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_diffusers_makes_of_it_what_the_file_says(
    tmp_path: Path, tiny_path: TinyPath, random_lora: RandomLora, kind: str
) -> None:
    """With several ranks and alphas, of which diffusers loses some where it reads kohya's names itself."""
    lora = random_lora(kind, conv=True)
    file = with_other_alphas(lora)
    out = tmp_path / "diffusers.safetensors"
    assert convert(lora, "diffusers", out) == 0

    check(kind, tiny_path(kind), fused(kind, tiny_path(kind), out), file.layers)


@pytest.mark.parametrize("kind", ["sd15", "sd21", "sdxl"])
@pytest.mark.parametrize("alpha", ["the weights'", "float32", "none"])
def test_there_and_back_gives_the_same_bytes(tmp_path: Path, random_lora: RandomLora, kind: str, alpha: str) -> None:
    lora = random_lora(kind, conv=True, alpha=3)
    file = read_adapter_file(lora)
    layers = {}
    for name, layer in file.layers.items():
        tensors = {end: tensor.half() for end, tensor in layer.tensors.items()}
        if alpha == "float32":
            tensors["alpha"] = tensors["alpha"].float()
        if alpha == "none":
            del tensors["alpha"]
        layers[name] = FileLayer("lora", tensors)
    write_adapter_file(lora, layers, None, file.metadata)
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    assert convert(lora, "diffusers", there) == 0
    assert convert(there, "kohya", back) == 0
    assert back.read_bytes() == lora.read_bytes()
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in load_file(there))


def test_a_dora_goes_there_and_back_and_diffusers_makes_what_lycoris_makes(tmp_path: Path, tiny_path: TinyPath) -> None:
    torch.manual_seed(0)
    paths = {
        "lora_unet_mid_block_attentions_0_proj_in": "mid_block.attentions.0.proj_in",  # a 1 x 1 convolution
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q": (
            "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
        ),
    }
    places = layer_places("sd15")
    layers = {}
    with open_base(tiny_path("sd15")) as base:
        before = {name: base.read(places[name]).float() for name in paths}
    for name, weight in before.items():
        out, into, *kernel = weight.shape
        tensors = {
            "lora_up.weight": torch.randn(out, 2, *kernel) * 0.1,
            "lora_down.weight": torch.randn(2, into, *kernel) * 0.1,
            "alpha": torch.tensor(1.0),
            "dora_scale": torch.rand(out, 1, *kernel) + 0.5,
        }
        layers[name] = FileLayer("lora", tensors)
    lora, there, back = (tmp_path / f"{name}.safetensors" for name in ("lora", "there", "back"))
    write_adapter_file(lora, layers, None, {"ss_base_model_version": "sd_v1"})
    assert convert(lora, "diffusers", there) == 0
    assert convert(there, "kohya", back) == 0
    assert back.read_bytes() == lora.read_bytes()

    found = fused("sd15", tiny_path("sd15"), there)["unet"]
    for name, path in paths.items():
        expected = changed_weight(name, layers[name], before[name], 1.0)
        torch.testing.assert_close(found[f"{path}.weight"], expected, rtol=1e-4, atol=1e-5)


def test_files_of_diffusers_itself_are_read(tmp_path: Path, tiny_path: TinyPath) -> None:
    """Written by save_lora_weights after peft has put its layers in, with rank and alpha in the metadata only."""
    from peft import LoraConfig, get_peft_model_state_dict

    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_path("sdxl"))
    torch.manual_seed(0)
    config = {"r": 4, "lora_alpha": 2, "alpha_pattern": {"attn2.to_q": 6}, "init_lora_weights": False}
    pipeline.unet.add_adapter(LoraConfig(target_modules=["to_q"], **config))
    pipeline.text_encoder.add_adapter(LoraConfig(target_modules=["q_proj"], **config))
    pipeline.text_encoder_2.add_adapter(LoraConfig(target_modules=["q_proj"], **config))
    states = {
        part: get_peft_model_state_dict(getattr(pipeline, part)) for part in ("unet", "text_encoder", "text_encoder_2")
    }
    StableDiffusionXLPipeline.save_lora_weights(
        tmp_path,
        **{f"{part}_lora_layers": state for part, state in states.items()},
        **{
            f"{part}_lora_adapter_metadata": getattr(pipeline, part).peft_config["default"].to_dict() for part in states
        },
    )
    saved, out = tmp_path / "pytorch_lora_weights.safetensors", tmp_path / "kohya.safetensors"
    assert convert(saved, "kohya", out) == 0
    layers = read_adapter_file(out).layers
    assert len(layers) == len(load_file(saved)) // 2
    alphas = {name: layer.alpha for name, layer in layers.items()}
    assert {alpha for name, alpha in alphas.items() if name.endswith("attn2_to_q")} == {6.0}
    assert {alpha for name, alpha in alphas.items() if not name.endswith("attn2_to_q")} == {2.0}
    check("sdxl", tiny_path("sdxl"), fused("sdxl", tiny_path("sdxl"), saved), layers)


def test_sdxl_in_the_names_of_diffusers_gets_those_of_the_checkpoint(tmp_path: Path) -> None:
    old, out = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    name = "lora_unet_up_blocks_0_attentions_1_transformer_blocks_9_ff_net_0_proj"
    hada = {end: torch.ones(2, 2) for end in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")}
    save_file(
        {f"{name}.{end}": tensor for end, tensor in hada.items()}, old, {"ss_base_model_version": "sdxl_base_v1-0"}
    )
    assert convert(old, "kohya", out) == 0
    new = "lora_unet_output_blocks_1_1_transformer_blocks_9_ff_net_0_proj"
    assert load_file(out).keys() == {f"{new}.{end}" for end in hada}


def test_what_diffusers_does_not_load_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    names = [f"lora_te_text_model_encoder_layers_0_mlp_fc{n}" for n in (1, 2)]
    save_file({f"{names[0]}.lokr_w1": torch.ones(2, 2), f"{names[0]}.lokr_w2": torch.ones(2, 2)}, path)
    assert convert(path, "diffusers", out) == 2
    assert capsys.readouterr().err == f"{path} does not tell for which models it is; add --base sd15, sd21 or sdxl\n"
    assert convert(path, "diffusers", out, "--base", "sd15") == 2
    assert capsys.readouterr().err == (
        f"{path}: {names[0]} is a LoKr, which diffusers does not load; make a LoRA of it with merge_lora --rank\n"
    )
    assert convert(path, "kohya", out, "--base", "sdxl") == 0  # lora_te_ is understood as the first text encoder
    assert {name.partition(".")[0] for name in load_file(out)} == {names[0].replace("lora_te_", "lora_te1_")}
    save_file({"lora_unet_strange.diff": torch.ones(2)}, path)
    assert convert(path, "kohya", tmp_path / "c.safetensors", "--base", "sd15") == 2
    assert "1 of 1 layers have names that no sd15 model has, for example lora_unet_strange" in capsys.readouterr().err


def test_ranks_and_alphas_are_told_to_peft(tmp_path: Path, random_lora: RandomLora) -> None:
    lora, out = random_lora("sd15", rank=4, alpha=2), tmp_path / "out.safetensors"
    with_other_alphas(lora)
    assert convert(lora, "diffusers", out) == 0
    from safetensors import safe_open

    with safe_open(out, "pt") as file:
        told = json.loads(file.metadata()[PEFT_CONFIG])
    assert (told["unet.r"], told["unet.lora_alpha"], told["unet.use_dora"]) == (4, 2.0, False)
    assert set(told["unet.rank_pattern"].values()) == {3}
    assert not any("text_model" in name for name in told["text_encoder.target_modules"])
    place = layer_places("sd15")["lora_te_text_model_encoder_layers_0_mlp_fc1"]
    assert diffusers_layer(place) == "text_encoder.text_model.encoder.layers.0.mlp.fc1"
