"""LoRA files as they are found: kinds, names of kohya and diffusers, and for which base model they are."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.models.adapter_file import in_kohya_names, read_adapter_file, write_adapter_file
from lora_trainer.models.adapter_names import (
    Place,
    TensorName,
    base_kind,
    kernel_of,
    kind_of_layer,
    kohya_layers,
    layer_places,
    peft_alphas,
    peft_config,
    split_name,
)
from lora_trainer.models.base_configs import KINDS

ONE = torch.ones(2, 2)
ENDINGS: dict[str, tuple[str, dict[str, Tensor]]] = {
    "LoRA": ("lora", {"lora_up.weight": ONE, "lora_down.weight": ONE, "alpha": torch.tensor(1.0)}),
    "LoRA with a Tucker core": (
        "lora",
        {"lora_up.weight": torch.ones(2, 2, 1, 1), "lora_mid.weight": torch.ones(2, 2, 3, 3), "lora_down.weight": ONE},
    ),
    "DoRA": ("lora", {"lora_up.weight": ONE, "lora_down.weight": ONE, "dora_scale": torch.ones(2, 1)}),
    "LoHa": ("loha", {f"hada_w{n}_{m}": ONE for n in (1, 2) for m in ("a", "b")}),
    "LoKr": ("lokr", {"lokr_w1": ONE, "lokr_w2_a": ONE, "lokr_w2_b": ONE, "alpha": torch.tensor(1.0)}),
    "GLoRA": ("glora", {f"{n}.weight": ONE for n in ("a1", "a2", "b1", "b2")}),
    "(IA)3": ("ia3", {"weight": torch.ones(2), "on_input": torch.tensor(1)}),
    "OFT": ("oft", {"oft_blocks": torch.ones(1, 2, 2), "alpha": torch.tensor(0.0)}),
    "BOFT": ("boft", {"oft_blocks": torch.ones(1, 1, 2, 2), "rescale": torch.ones(2, 1)}),
    "full difference": ("full", {"diff": ONE, "diff_b": torch.ones(2)}),
    "norm": ("norm", {"w_norm": torch.ones(2), "b_norm": torch.ones(2)}),
    "bias": ("bias", {"diff_b": torch.ones(2)}),
}


def test_every_kind_is_known_and_written_back_as_it_was(tmp_path: Path) -> None:
    tensors = {
        f"lora_unet_{number}.{end}": tensor.clone()
        for number, (_, layer) in enumerate(ENDINGS.values())
        for end, tensor in layer.items()
    }
    save_file(tensors, tmp_path / "a.safetensors", {"k": "v"})
    torch.save(tensors, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        file = read_adapter_file(tmp_path / name)
        kinds = {layer: (found.words, found.kind) for layer, found in file.layers.items()}
        assert kinds == {f"lora_unet_{n}": (words, kind) for n, (words, (kind, _)) in enumerate(ENDINGS.items())}
        out = tmp_path / "out.safetensors"
        write_adapter_file(out, file.layers, torch.float16, {})
        found = load_file(out)
        assert found.keys() == tensors.keys()
        assert {name for name, tensor in found.items() if tensor.dtype != torch.float16} == {"lora_unet_6.on_input"}
    assert read_adapter_file(tmp_path / "a.safetensors").metadata == {"k": "v"}


def test_what_is_unknown_or_incomplete_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    names = ["lora_unet_a.lora_down.weight", "lora_unet_b.hada_w1_a", "lora_unet_c.lora_up.weight"]
    names += ["lora_unet_c.lora_down.weight", "lora_unet_c.strange", "lora_unet_d.lokr_w1", "lora_unet_e.diff"]
    save_file({name: torch.ones(1) for name in names}, path)
    with pytest.raises(Refusal) as refusal:
        read_adapter_file(path)
    assert str(refusal.value) == (
        f"{path}: 4 of 5 layers are of an unknown kind or incomplete (lora_unet_a with lora_down.weight; "
        "lora_unet_b with hada_w1_a; lora_unet_c with lora_down.weight, lora_up.weight, strange; "
        "lora_unet_d with lokr_w1); "
        "give a complete file of LoRA, LoCon, LoHa, LoKr, (IA)3, GLoRA, OFT, BOFT or full differences"
    )
    save_file({"model.weight": torch.ones(1)}, path)
    with pytest.raises(Refusal, match="this is no LoRA file, its tensors are named like model with weight"):
        read_adapter_file(path)
    with pytest.raises(Refusal, match="there is no such LoRA file"):
        read_adapter_file(tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "layer", "ending"),
    [
        ("lora_unet_x.lora_down.weight", "lora_unet_x", "lora_down.weight"),
        ("lora_te1_x.a1.weight", "lora_te1_x", "a1.weight"),
        ("unet.a.0.to_q.lora_A.weight", "unet.a.0.to_q", "lora_down.weight"),
        ("unet.a.to_out.0.lora_B.default_0.weight", "unet.a.to_out.0", "lora_up.weight"),
        ("text_encoder_2.a.q_proj.lora_magnitude_vector", "text_encoder_2.a.q_proj", "dora_scale"),
        ("text_encoder.a.q_proj.lora_linear_layer.up.weight", "text_encoder.a.q_proj", "lora_up.weight"),
        ("unet.a.lora.down.weight", "unet.a", "lora_down.weight"),
        ("unet.a.alpha", "unet.a", "alpha"),
    ],
)
def test_names_are_split(name: str, layer: str, ending: str) -> None:
    assert split_name(name) == TensorName(layer, ending)


@pytest.mark.parametrize("kind", KINDS)
def test_every_spelling_of_a_layer_is_understood(kind: str) -> None:
    places, names = layer_places(kind), kohya_layers(kind)
    assert all(places[name] == place for place, name in names.items())
    deep = Place("unet", "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_out.0")
    text = Place("text_encoder", "encoder.layers.3.self_attn.q_proj")
    number = 8
    for name, place in {
        "lora_unet_down_blocks_2_attentions_1_transformer_blocks_0_attn2_to_out_0": deep,
        f"lora_unet_input_blocks_{number}_1_transformer_blocks_0_attn2_to_out_0": deep,
        "lycoris_down_blocks_2_attentions_1_transformer_blocks_0_attn2_to_out_0": deep,
        "unet.down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_out.0": deep,
        "lora_te_text_model_encoder_layers_3_self_attn_q_proj": text,
        "lora_te1_text_model_encoder_layers_3_self_attn_q_proj": text,
        "text_encoder.text_model.encoder.layers.3.self_attn.q_proj": text,
        "text_encoder.encoder.layers.3.self_attn.q_proj": text,
    }.items():
        assert places[name] == place
    assert ("lora_te2_text_projection" in places) == (kind == "sdxl")


def test_the_names_of_full_size_files_are_all_known() -> None:
    """Those that sd-scripts writes, from a golden file."""
    golden = Path(__file__).parents[1] / "golden" / "kohya_layers.txt.gz"
    lines = gzip.decompress(golden.read_bytes()).decode().splitlines()
    names = {word for line in lines for word in line.split() if word.startswith("lora_")}
    known = {name for kind in KINDS for name in layer_places(kind)}
    assert len(names) > 1000
    assert names <= known


def test_two_names_of_one_layer_in_a_file_are_refused(tmp_path: Path) -> None:
    names = ("lora_unet_input_blocks_4_1_proj_in", "lora_unet_down_blocks_1_attentions_0_proj_in")
    save_file({f"{name}.diff": torch.ones(1) for name in names}, tmp_path / "a.safetensors")
    file = read_adapter_file(tmp_path / "a.safetensors")
    with pytest.raises(Refusal, match="a layer is in it twice, under two names"):
        in_kohya_names(file, "sdxl")


@pytest.mark.parametrize(
    ("names", "metadata", "kind"),
    [
        ({"x.diff": (1,)}, {"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"x.diff": (1,)}, {"ss_base_model_version": "sd_v2_v"}, "sd21"),
        ({"x.diff": (1,)}, {"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd15"),
        ({"lora_te2_x.diff": (1,)}, {}, "sdxl"),
        ({"lora_unet_middle_block_1_proj_in.diff": (1,)}, {}, "sdxl"),
        ({"lora_unet_mid_block_attn2_to_k.lora_down.weight": (4, 768)}, {}, "sd15"),
        ({"lora_unet_mid_block_attn2_to_k.lora_down.weight": (4, 1024)}, {}, "sd21"),
        ({"unet.mid_block.attn2.to_v.lora_A.weight": (4, 2048)}, {}, "sdxl"),
        ({"lora_unet_mid_block_attn2_to_k.lora_down.weight": (4, 99)}, {}, None),
        ({"lora_te_x.diff": (1,)}, {"ss_base_model_version": "flux1"}, None),
    ],
)
def test_for_which_base_model_a_file_is(names: dict, metadata: dict[str, str], kind: str | None) -> None:
    assert base_kind(names, metadata) == kind


def test_a_kind_needs_all_its_tensors() -> None:
    for words, (kind, tensors) in ENDINGS.items():
        shapes = {end: tuple(tensor.shape) for end, tensor in tensors.items()}
        assert kind_of_layer(shapes, shapes) == kind, words
        assert kind_of_layer({**shapes, "strange": (1,)}, shapes) is None
    assert kind_of_layer({"lora_up.weight", "alpha"}, {}) is None
    assert kind_of_layer({"lokr_w1_a", "lokr_w2"}, {}) is None


def test_ranks_and_alphas_of_diffusers_are_written_and_read() -> None:
    ranks = {"unet.a.b": 4, "unet.a.c": 4, "unet.d": 8, "text_encoder.text_model.x": 2}
    alphas = {"unet.a.b": 2.0, "unet.a.c": 2.0, "unet.d": 0.5, "text_encoder.text_model.x": 7.0}
    metadata = {"lora_adapter_metadata": peft_config(ranks, alphas, False)}
    assert peft_alphas(metadata, ranks) == alphas
    assert peft_alphas({}, ranks) == {name: float(rank) for name, rank in ranks.items()}
    rank_stabilised = {"lora_adapter_metadata": '{"unet.r": 4, "unet.lora_alpha": 3, "unet.use_rslora": true}'}
    assert peft_alphas(rank_stabilised, {"unet.a": 4}) == {"unet.a": 6.0}
    assert peft_alphas({"lora_adapter_metadata": "broken"}, {"unet.a": 4}) == {"unet.a": 4.0}


def test_kernels_by_path() -> None:
    assert kernel_of("sdxl", "down_blocks.0.resnets.0.conv1") == (3, 3)
    assert kernel_of("sdxl", "up_blocks.0.upsamplers.0.conv") == (3, 3)
    assert kernel_of("sdxl", "down_blocks.1.resnets.0.conv_shortcut") == (1, 1)
    assert kernel_of("sd15", "mid_block.attentions.0.proj_in") == (1, 1)
    assert kernel_of("sdxl", "mid_block.attentions.0.proj_in") == ()
    assert kernel_of("sdxl", "mid_block.resnets.0.time_emb_proj") == ()
