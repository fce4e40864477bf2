"""Merging LoRAs into each other and into base models, compared with what diffusers and the single files do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_trainer.models.adapter_delta import changed_bias, changed_weight, own_change
from lora_trainer.models.adapter_file import AdapterFile, FileLayer, read_adapter_file
from lora_trainer.models.base_weights import open_base
from lora_trainer.models.kohya_metadata import with_hashes
from lora_trainer.models.tensor_files import MODELSPEC_HASH
from tools.merge_lora import main

TinyPath = Callable[..., Path]
RandomLora = Callable[..., Path]


def merge(*words: object) -> int:
    return main([str(word) for word in words])


def changes(file: AdapterFile) -> dict[str, Tensor]:
    return {name: own_change(layer) for name, layer in file.layers.items()}


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


# ------------------------------------------------------------------------------------------------------ into each other


def test_ranks_side_by_side_do_what_all_files_do_together(tmp_path: Path, random_lora: RandomLora) -> None:
    one, two = random_lora("sdxl", rank=4, alpha=2, conv=True), random_lora("sdxl", rank=2, alpha=2, name="b", seed=1)
    out = tmp_path / "new" / "both.safetensors"
    assert merge(one, two, "--ratio", 0.8, -0.5, "--output", out) == 0

    first, second, both = changes(read_adapter_file(one)), changes(read_adapter_file(two)), read_adapter_file(out)
    for name, change in changes(both).items():
        torch.testing.assert_close(change, 0.8 * first[name] - 0.5 * second.get(name, 0), rtol=1e-4, atol=1e-6)
    assert both.layers.keys() == first.keys()
    told = both.metadata
    assert (told["ss_network_dim"], told["ss_network_alpha"], told["ss_network_module"]) == (
        "Dynamic",
        "Dynamic",
        "networks.lora",
    )
    assert json.loads(told["ss_network_args"]) == {"conv_dim": "4", "conv_alpha": "4"}
    assert told["ss_base_model_version"] == "sdxl_base_v1-0"
    assert told["modelspec.merged_from"] == "lora ü.safetensors x 0.8, b ü.safetensors x -0.5"
    assert (told["ss_output_name"], told["modelspec.title"]) == ("both", "both")
    assert told["sshs_model_hash"] == with_hashes(load_file(out), {})["sshs_model_hash"]


def test_a_given_rank_is_the_nearest_lora_of_the_sum(
    tmp_path: Path, random_lora: RandomLora, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = random_lora("sd15", rank=3, conv=True), random_lora("sd15", rank=3, conv=True, name="b", seed=1)
    out = tmp_path / "both.safetensors"
    assert merge(one, two, "--rank", 4, "--conv-rank", 2, "--precision", "fp16", "--output", out) == 0

    first, second, both = changes(read_adapter_file(one)), changes(read_adapter_file(two)), read_adapter_file(out)
    assert {layer.tensors["alpha"].dtype for layer in both.layers.values()} == {torch.float16}
    for name, change in changes(both).items():
        wanted = (first[name] + second[name]).flatten(1)
        wide = first[name].shape[2:] == (3, 3)
        rank = 2 if wide else 4
        assert both.layers[name].rank == rank
        rest = torch.linalg.svdvals(wanted)[rank:].norm()  # no matrix of this rank is nearer
        assert (change.flatten(1) - wanted).norm() <= rest * 1.001 + 1e-3 * wanted.norm()
    assert "lost of the layers' changes: " in capsys.readouterr().out


def test_loras_named_in_both_layouts_of_sdxl_meet(tmp_path: Path) -> None:
    down, up = torch.randn(2, 6), torch.randn(5, 2)
    names = ("lora_unet_input_blocks_4_1_proj_in", "lora_unet_down_blocks_1_attentions_0_proj_in")
    paths = [tmp_path / "ldm.safetensors", tmp_path / "diffusers.safetensors"]
    for name, path in zip(names, paths, strict=True):
        save_file(
            {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, path, {"ss_base_model_version": "sdxl"}
        )
    out = tmp_path / "both.safetensors"
    assert merge(*paths, "--output", out) == 0
    found = read_adapter_file(out)
    assert list(found.layers) == [names[0]]
    torch.testing.assert_close(changes(found)[names[0]], 2 * up @ down)


def test_other_kinds_become_a_lora_of_a_given_rank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    loha = {f"hada_w{n}_{m}": torch.randn((6, 2) if m == "a" else (2, 4 * 9)) for n in (1, 2) for m in ("a", "b")}
    full = {"diff": torch.randn(6, 4, 3, 3), "diff_b": torch.randn(6)}
    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    paths = []
    for kind, tensors in (("loha", loha), ("full", full)):
        paths.append(tmp_path / f"{kind}.safetensors")
        save_file({f"{name}.{end}": t for end, t in tensors.items()}, paths[-1], {"ss_base_model_version": "sd_v1"})
    out = tmp_path / "both.safetensors"
    assert merge(*paths, "--output", out) == 2
    assert capsys.readouterr().err == (
        f"{name}: a LoHa cannot be put beside others as it is; give --rank to make a LoRA of the sum\n"
    )
    assert merge(*paths, "--rank", 6, "--output", out) == 0
    layer = read_adapter_file(out).layers[name]
    assert layer.tensors["lora_down.weight"].shape == (6, 4, 3, 3)
    assert layer.tensors["lora_up.weight"].shape == (6, 6, 1, 1)
    wanted = own_change(FileLayer("loha", loha)).view(6, 4, 3, 3) + full["diff"]
    torch.testing.assert_close(own_change(layer), wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(layer.tensors["diff_b"], full["diff_b"])


def test_full_differences_and_norms_are_added(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {
        "lora_te_x.diff": torch.randn(3, 3),
        "lora_te_y.w_norm": torch.randn(3),
        "lora_te_y.b_norm": torch.randn(3),
    }
    path, out = tmp_path / "a.safetensors", tmp_path / "out.safetensors"
    save_file(tensors, path)
    assert merge(path, path, "--ratio", 0.5, "--output", out) == 0
    found = load_file(out)
    assert found.keys() == tensors.keys()
    assert all(torch.allclose(found[name], tensor) for name, tensor in tensors.items())


# -------------------------------------------------------------------------------------------------------- into a base


@pytest.mark.parametrize("kind", ["sd15", "sd21", "sdxl"])
def test_the_merged_base_is_what_diffusers_fuses(
    tmp_path: Path, tiny_path: TinyPath, random_lora: RandomLora, kind: str
) -> None:
    lora = random_lora(kind, conv=True)
    file, folder = tmp_path / "merged.safetensors", tmp_path / "merged"
    for base, out in ((tiny_path(kind, ".safetensors"), file), (tiny_path(kind), folder)):
        assert merge(lora, "--base", base, "--ratio", 0.7, "--precision", "float", "--output", out) == 0

    pipeline = StableDiffusionXLPipeline if kind == "sdxl" else StableDiffusionPipeline
    fused = pipeline.from_pretrained(tiny_path(kind), torch_dtype=torch.float32)
    parts = [part for part in ("unet", "text_encoder", "text_encoder_2") if hasattr(fused, part)]
    before = {part: {n: t.clone() for n, t in getattr(fused, part).state_dict().items()} for part in parts}
    fused.load_lora_weights(lora)
    fused.fuse_lora(components=parts, lora_scale=0.7)
    fused.unload_lora_weights()
    merged = pipeline.from_pretrained(folder, torch_dtype=torch.float32)
    changed = 0
    for part in parts:
        wanted, found = getattr(fused, part).state_dict(), getattr(merged, part).state_dict()
        assert wanted.keys() == found.keys()
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=2e-6, msg=f"{part}.{name}")
            changed += not torch.equal(tensor, before[part][name])
    assert changed == len(read_adapter_file(lora).layers)
    with open_base(file) as one, open_base(folder) as other:
        for place, leaves in one.slots.items():
            for leaf in leaves:
                assert torch.equal(one.read(place, leaf).flatten(), other.read(place, leaf).flatten()), place


def test_every_kind_changes_its_layer_and_nothing_else(tmp_path: Path, tiny_path: TinyPath) -> None:
    base = tiny_path("sdxl", ".safetensors")
    torch.manual_seed(0)
    attention = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to"
    with open_base(base) as opened:
        width = opened.files[base].shapes[
            "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
        ][0]
    layers = {
        f"{attention}_q": FileLayer("oft", {"oft_blocks": torch.randn(width // 4, 4, 4), "alpha": torch.tensor(0.0)}),
        f"{attention}_k": FileLayer("ia3", {"weight": torch.randn(width), "on_input": torch.tensor(1)}),
        f"{attention}_v": FileLayer(
            "lokr", {"lokr_w1": torch.randn(2, 2), "lokr_w2": torch.randn(width // 2, width // 2)}
        ),
        f"{attention}_out_0": FileLayer("full", {"diff": torch.randn(width, width), "diff_b": torch.randn(width)}),
        "lora_te2_text_model_encoder_layers_1_self_attn_k_proj": FileLayer("full", {"diff": torch.randn(40, 40)}),
        "lora_te1_text_model_encoder_layers_1_layer_norm1": FileLayer("norm", {"w_norm": torch.randn(32)}),
        "lora_te2_text_projection": FileLayer("full", {"diff": torch.randn(40, 40)}),
    }
    path, out = tmp_path / "lora.pt", tmp_path / "out.safetensors"
    torch.save({f"{name}.{end}": t for name, layer in layers.items() for end, t in layer.tensors.items()}, path)
    assert merge(path, "--base", base, "--ratio", 0.5, "--precision", "float", "--output", out) == 0

    before, after = load_file(base), load_file(out)
    unet = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1"
    stacked = "conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight"
    te2 = "conditioner.embedders.1.model.text_projection"
    te1 = "conditioner.embedders.0.transformer.text_model.encoder.layers.1.layer_norm1.weight"
    expected = {
        f"{unet}.to_q.weight": f"{attention}_q",
        f"{unet}.to_k.weight": f"{attention}_k",
        f"{unet}.to_v.weight": f"{attention}_v",
        f"{unet}.to_out.0.weight": f"{attention}_out_0",
        te1: "lora_te1_text_model_encoder_layers_1_layer_norm1",
    }
    for tensor, name in expected.items():
        torch.testing.assert_close(after[tensor], changed_weight(name, layers[name], before[tensor].float(), 0.5))
    bias = changed_bias("", layers[f"{attention}_out_0"], before[f"{unet}.to_out.0.bias"].float(), 0.5)
    torch.testing.assert_close(after[f"{unet}.to_out.0.bias"], bias)
    key = before[stacked].float()
    key[40:80] += 0.5 * layers["lora_te2_text_model_encoder_layers_1_self_attn_k_proj"].tensors["diff"]
    torch.testing.assert_close(after[stacked], key)
    torch.testing.assert_close(
        after[te2], before[te2].float() + 0.5 * layers["lora_te2_text_projection"].tensors["diff"].T
    )
    changed = {name for name in before if not torch.equal(before[name].float(), after[name])}
    assert changed == {*expected, f"{unet}.to_out.0.bias", stacked, te2}


def test_precision_and_metadata_stay_but_for_the_hash(
    tmp_path: Path, tiny_path: TinyPath, random_lora: RandomLora
) -> None:
    base, out = tmp_path / "base.safetensors", tmp_path / "out.safetensors"
    tensors = load_file(tiny_path("sd15", ".safetensors"))
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(tensors, base, {**metadata_of(tiny_path("sd15", ".safetensors")), MODELSPEC_HASH: "0x12"})
    assert merge(random_lora("sd15"), "--base", base, "--output", out) == 0

    after, told = load_file(out), metadata_of(out)
    assert {name: (t.dtype, t.shape) for name, t in after.items()} == {
        n: (t.dtype, t.shape) for n, t in tensors.items()
    }
    assert told["modelspec.merged_from"] == "base.safetensors, lora ü.safetensors x 1"
    assert told[MODELSPEC_HASH] == "0x" + with_data_hash(out)
    assert told.keys() == {*metadata_of(base), "modelspec.merged_from"}
    assert out.read_bytes()[8:].startswith(b"{")
    assert list(tmp_path.glob(".tmp-*")) == []


def with_data_hash(path: Path) -> str:
    from lora_trainer.models.file_facts import data_hash

    return data_hash(path)


@pytest.mark.parametrize("as_folder", [False, True])
def test_layers_that_the_base_does_not_have_are_refused(
    tmp_path: Path, tiny_path: TinyPath, random_lora: RandomLora, capsys: pytest.CaptureFixture[str], as_folder: bool
) -> None:
    base, out = (
        tiny_path("sd15", "" if as_folder else ".safetensors"),
        tmp_path / f"out{'' if as_folder else '.safetensors'}",
    )
    odd = tmp_path / "odd.safetensors"
    factors = {"lora_down.weight": torch.ones(1, 8), "lora_up.weight": torch.ones(8, 1)}
    names = ("lora_unet_down_blocks_7_proj", "lora_te_text_model_encoder_layers_30_mlp_fc1")
    save_file({f"{name}.{end}": t.clone() for name in names for end, t in factors.items()}, odd)
    sdxl = random_lora("sdxl")
    assert merge(odd, sdxl, "--base", base, "--output", out) == 2
    assert capsys.readouterr().err == (
        f"{odd}: 2 of 2 layers are not in {base} ({', '.join(sorted(names))}), so nothing is written; "
        "give a base model of the same family\n"
        f"{sdxl} is for Stable Diffusion XL and {base} is Stable Diffusion 1.x; give files of the same family\n"
    )
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ratio", "1", "2"], "--ratio has 2 numbers for 1 files; give one for each, or one"),
        (["--conv-rank", "2"], "--conv-rank is for --rank; give that as well"),
        (["--base", "x", "--rank", "2"], "--rank is for merging LoRAs into each other"),
        (["--output", "a.ckpt"], "--output a.ckpt: the file must end in .safetensors; correct the name"),
        (["--ratio", "0"], "--ratio is 0 for all files, so nothing is left; give other numbers"),
    ],
)
def test_uses_that_make_no_sense_are_refused(
    tmp_path: Path, random_lora: RandomLora, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    lora = random_lora("sd15", rank=1)
    assert merge(lora, "--output", tmp_path / "out.safetensors", *words) == 2
    assert capsys.readouterr().err.startswith(message)


def test_an_input_is_never_overwritten(
    tmp_path: Path, tiny_path: TinyPath, random_lora: RandomLora, capsys: pytest.CaptureFixture[str]
) -> None:
    lora = random_lora("sd15", rank=1)
    before = lora.read_bytes()
    assert merge(lora, "--output", lora, "--overwrite") == 2
    assert capsys.readouterr().err == f"--output {lora} is what is read ({lora}); give another name\n"
    assert lora.read_bytes() == before
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"old")
    assert merge(lora, "--output", out) == 2
    assert capsys.readouterr().err == f"--output {out} is there already; give another name, or --overwrite\n"
    assert merge(lora, "--output", out, "--overwrite") == 0
    assert merge(lora, "--base", tiny_path("sd15"), "--output", tiny_path("sd15"), "--overwrite") == 2
