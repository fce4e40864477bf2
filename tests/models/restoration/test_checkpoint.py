"""The files have the key set of a freshly built adapter of peft's, which loads them, and come back unchanged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lora_trainer.config.restoration_model import LORA_MODULES as MODULES
from lora_trainer.errors import Refusal
from lora_trainer.models.adapter_convert import to_diffusers, to_kohya
from lora_trainer.models.adapter_file import read_adapter_file
from lora_trainer.models.architectures import build_unet
from lora_trainer.models.restoration.checkpoint import (
    diffusers_names,
    load_restorer,
    lora_parameters,
    lora_state,
    modules_and_rank,
    read_restorer,
    write_restorer,
)
from lora_trainer.models.restoration.file_names import AVERAGED, PLAIN
from lora_trainer.models.restoration.lora import add_restoration_lora, lora_paths
from lora_trainer.models.tiny_models import tiny_configs

FEW = ("to_q", "conv_out")


def bare_unet() -> UNet2DConditionModel:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return build_unet(tiny_configs("sd21")["unet"]).eval()


def trained_unet(rank: int = 4, modules: tuple[str, ...] = FEW, seed: int = 0) -> UNet2DConditionModel:
    unet = bare_unet()
    add_restoration_lora(unet, lora_paths(unet, modules, "lora_modules"), rank, seed)
    with torch.no_grad():
        for name, weight in lora_parameters(unet).items():
            if ".lora_B." in name:
                weight.normal_(generator=torch.Generator().manual_seed(len(name)), std=0.1)
    return unet


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return trained_unet()


def answer(unet: UNet2DConditionModel) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    latents, texts = (torch.randn(shape, generator=generator) for shape in ((1, 4, 8, 8), (1, 77, 40)))
    with torch.no_grad():
        found: Tensor = unet(latents, 200, texts).sample
    return found


def test_the_names_are_the_published_ones(unet: UNet2DConditionModel) -> None:
    state = lora_state(unet)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_{}.default.weight"
    assert tuple(state[name.format("A")].shape) == (4, 8)
    assert tuple(state[name.format("B")].shape) == (8, 4)
    assert tuple(state["conv_out.lora_A.default.weight"].shape) == (4, 8, 3, 3)
    assert tuple(state["conv_out.lora_B.default.weight"].shape) == (4, 4, 1, 1)
    assert all(name.endswith((".lora_A.default.weight", ".lora_B.default.weight")) for name in state)


def test_inference_with_peft_alone_takes_the_file(tmp_path: Path) -> None:
    unet = trained_unet(modules=MODULES)
    write_restorer(tmp_path, lora_state(unet), PLAIN, {})
    other = bare_unet()
    before = answer(other)
    other.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=list(MODULES)))
    state = torch.load(tmp_path / "state_dict.pth", map_location="cpu", weights_only=True)
    assert set(state) == {name for name in other.state_dict() if "lora" in name}
    assert set(state) == {name for name, weight in other.named_parameters() if weight.requires_grad}
    other.load_state_dict(state, strict=False)
    torch.testing.assert_close(answer(other), answer(unet))
    assert float((answer(other) - before).abs().max()) > 0.01


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_written_comes_back(tmp_path: Path, unet: UNet2DConditionModel, suffix: str) -> None:
    folder = tmp_path / "größer und kleiner"
    files = write_restorer(folder, lora_state(unet), AVERAGED, {"step": "500"})
    assert [file.name for file in files] == ["ema_state_dict.pth", "ema_state_dict.safetensors"]
    path = folder / f"{AVERAGED}{suffix}"
    state = read_restorer(path)
    fresh = bare_unet()
    paths, rank = modules_and_rank(path, state)
    assert (set(paths), rank) == (set(lora_paths(fresh, FEW, "lora_modules")), 4)
    add_restoration_lora(fresh, paths, rank, seed=9)
    load_restorer(fresh, path, state)
    assert torch.equal(answer(fresh), answer(unet))


def test_the_safetensors_file_says_what_it_is_told(tmp_path: Path, unet: UNet2DConditionModel) -> None:
    write_restorer(tmp_path, lora_state(unet), PLAIN, {"model_t": "200"})
    with safe_open(tmp_path / "state_dict.safetensors", "pt") as file:
        assert file.metadata() == {"model_t": "200"}
        assert set(file.keys()) == set(lora_state(unet))


def test_the_same_weights_give_the_same_bytes(tmp_path: Path, unet: UNet2DConditionModel) -> None:
    one = write_restorer(tmp_path / "one", lora_state(unet), PLAIN, {})
    two = write_restorer(tmp_path / "two", lora_state(trained_unet()), PLAIN, {})
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]


def test_another_scale_than_one_is_taken_into_the_weights(tmp_path: Path, unet: UNet2DConditionModel) -> None:
    scaled = trained_unet()
    for layer in scaled.modules():
        if hasattr(layer, "set_alpha"):
            layer.set_alpha(2.0, 4)
    state = lora_state(scaled)
    name = "conv_out.lora_B.default.weight"
    assert torch.equal(state[name], lora_state(unet)[name] * 0.5)
    fresh = trained_unet(seed=5)
    load_restorer(fresh, tmp_path, state)
    torch.testing.assert_close(answer(fresh), answer(scaled))
    load_restorer(scaled, tmp_path, lora_state(unet))
    torch.testing.assert_close(answer(scaled), answer(unet))


def test_copies_stay_when_training_goes_on() -> None:
    unet = trained_unet()
    state = lora_state(unet)
    before = state["conv_out.lora_A.default.weight"].clone()
    with torch.no_grad():
        lora_parameters(unet)["conv_out.lora_A.default.weight"].add_(1)
    assert torch.equal(state["conv_out.lora_A.default.weight"], before)


def test_other_tools_get_every_layer_under_their_names(tmp_path: Path) -> None:
    with torch.device("meta"):
        unet = build_unet(tiny_configs("sd21")["unet"])
    add_restoration_lora(unet, lora_paths(unet, MODULES, "lora_modules"), 2, seed=0)
    state = {name: torch.zeros(weight.shape) for name, weight in lora_parameters(unet).items()}
    save_file(diffusers_names(state), tmp_path / "lora.safetensors")
    file = read_adapter_file(tmp_path / "lora.safetensors")
    assert set(to_diffusers(file, "sd21")[0]) == set(diffusers_names(state))
    layers, _ = to_kohya(file, "sd21")
    assert len(layers) == len(lora_paths(bare_unet(), MODULES, "lora_modules")) == 257
    assert {"lora_unet_conv_out", "lora_unet_down_blocks_0_resnets_0_conv1"} <= layers.keys()


def test_a_file_of_another_rank_says_which(unet: UNet2DConditionModel) -> None:
    said = (
        "a.pth: conv_out.lora_A.default.weight has the shape (8, 8, 3, 3) instead of (4, 8, 3, 3); set lora_rank to 8"
    )
    with pytest.raises(Refusal, match=re.escape(said)):
        load_restorer(unet, Path("a.pth"), lora_state(trained_unet(rank=8)))


def test_files_of_other_modules_are_refused_and_change_nothing(unet: UNet2DConditionModel) -> None:
    before = lora_state(unet)
    few = trained_unet(modules=("conv_out",), seed=3)
    said = "a.pth: the file lacks down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.default.weight, "
    with pytest.raises(Refusal, match=rf"^{re.escape(said)}.* and 61 more; give one of the same lora_modules$"):
        load_restorer(unet, Path("a.pth"), lora_state(few))
    assert all(torch.equal(before[name], tensor) for name, tensor in lora_state(unet).items())
    with pytest.raises(Refusal, match=r"^a\.pth: .* has no place here; set lora_modules to the file's$"):
        load_restorer(few, Path("a.pth"), before)


def test_other_files_are_refused_by_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="there is no such file"):
        read_restorer(tmp_path / "none.pth")
    torch.save({"conv_out.weight": torch.ones(1)}, tmp_path / "base.pth")
    with pytest.raises(Refusal, match=r"this is no LoRA of a restorer, it has conv_out\.weight; its tensors are named"):
        read_restorer(tmp_path / "base.pth")
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(Refusal, match="no LoRA of a restorer, it is empty"):
        read_restorer(tmp_path / "empty.pth")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>")
    with pytest.raises(Refusal, match="this is a web page; the download has failed"):
        read_restorer(tmp_path / "page.pth")
    state = {f"{layer}.lora_A.default.weight": torch.ones(rank, 2) for layer, rank in (("a", 2), ("b", 3))}
    with pytest.raises(Refusal, match=r"layers of the ranks \[2, 3\], but a restorer has one for all"):
        modules_and_rank(tmp_path / "mixed.pth", state)
