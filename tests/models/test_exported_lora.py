"""LoRA files: their tensors and bytes, and whether diffusers makes of them the model that was trained."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lora_trainer.models.adapter_file import PRECISIONS
from lora_trainer.models.adapters.lora import LoraWeights
from lora_trainer.models.adapters.network import adapter_disabled
from lora_trainer.models.adapters.targets import lora_targets
from lora_trainer.models.kohya_keys import by_kohya_name, by_module_path, kohya_names
from lora_trainer.models.text_encoding import TextCondition, encode_prompts
from tests.models.standard_lora import (
    add_lora,
    load_lora_weights,
    lora_file_bytes,
    lora_tensors,
    lora_weights,
    read_lora_file,
)

WORDS = 40  # of the vocabulary; the last two are BOS and EOS


def tiny_clip(model: type, width: int, layers: int) -> CLIPTextModel:
    ids = {"vocab_size": WORDS, "bos_token_id": WORDS - 2, "eos_token_id": WORDS - 1, "pad_token_id": 0}
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    return model(CLIPTextConfig(**ids, **sizes, num_attention_heads=2, projection_dim=width)).eval()


def tiny_sd(linear: bool) -> dict[str, nn.Module]:
    unet = UNet2DConditionModel(
        block_out_channels=(8, 8, 16, 16),  # the published block types
        attention_head_dim=2,
        cross_attention_dim=12,
        norm_num_groups=4,
        use_linear_projection=linear,
    )
    return {"unet": unet.eval(), "text_encoder": tiny_clip(CLIPTextModel, 12, 3)}


def tiny_sdxl() -> dict[str, nn.Module]:
    unet = UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 8, 16),
        transformer_layers_per_block=(1, 2, 3),
        attention_head_dim=2,
        cross_attention_dim=12 + 16,
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    return {
        "unet": unet.eval(),
        "text_encoder": tiny_clip(CLIPTextModel, 12, 3),
        "text_encoder_2": tiny_clip(CLIPTextModelWithProjection, 16, 3),
    }


BASES = {
    "sd15": ("sd15", lambda: tiny_sd(linear=False)),
    "sd21": ("sd21", lambda: tiny_sd(linear=True)),
    "sd21 with 1 x 1 convolutions": ("sd21", lambda: tiny_sd(linear=False)),
    "sdxl": ("sdxl", tiny_sdxl),
}


def make_base(base: str) -> tuple[str, dict[str, nn.Module]]:
    torch.manual_seed(0)
    kind, build = BASES[base]
    return kind, build()


def all_names(kind: str, models: dict[str, nn.Module]) -> dict[str, dict[str, str]]:
    config = models["unet"].config
    return {part: kohya_names(kind, part, lora_targets(model), config) for part, model in models.items()}


def train(kind: str, models: dict[str, nn.Module], *, rank: int = 4, alpha: float = 3) -> dict[str, LoraWeights]:
    """Give the models a random LoRA, as a training would; returns the weights by kohya name."""
    names = all_names(kind, models)
    generator = torch.Generator().manual_seed(1)
    for part, model in models.items():
        add_lora(model, names[part], rank=rank, alpha=alpha, seed=5)
        for layer in lora_weights(model).values():
            layer.up.data.normal_(std=0.2, generator=generator)
    return by_kohya_name(names, {part: lora_weights(model) for part, model in models.items()})


def pipeline(kind: str, models: dict[str, nn.Module]) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    if kind == "sdxl":
        return StableDiffusionXLPipeline(
            **models, vae=None, tokenizer=None, tokenizer_2=None, scheduler=None, add_watermarker=False
        )
    return StableDiffusionPipeline(
        **models,
        vae=None,
        tokenizer=None,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@torch.no_grad()
def outputs(kind: str, models: dict[str, nn.Module]) -> tuple[TextCondition, Tensor]:
    """What the models make of a fixed caption and latents."""
    ids = torch.full((1, 1, 77), WORDS - 1)
    ids[0, 0, :4] = torch.tensor([WORDS - 2, 3, 14, 15])
    encoders = [models[part] for part in ("text_encoder", "text_encoder_2") if part in models]
    text = encode_prompts(kind, encoders, [ids] * len(encoders), clip_skip=1)
    added = {"text_embeds": text.pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    return text, models["unet"](latents, 300, text.hidden, added_cond_kwargs=added).sample


def worst(ours: tuple[TextCondition, Tensor], theirs: tuple[TextCondition, Tensor]) -> float:
    """The largest difference, relative to the largest value."""
    pairs = [(ours[0].hidden, theirs[0].hidden), (ours[1], theirs[1])]
    if ours[0].pooled is not None and theirs[0].pooled is not None:
        pairs.append((ours[0].pooled, theirs[0].pooled))
    return max(float((one - two).abs().max() / one.abs().max()) for one, two in pairs)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("precision", "tolerance"), [("float", 1e-5), ("fp16", 5e-3)])
def test_diffusers_makes_of_the_file_what_was_trained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, base: str, precision: str, tolerance: float
) -> None:
    kind, trained = make_base(base)
    fresh = copy.deepcopy(trained)
    weights = train(kind, trained)
    file = tmp_path / "größe 模型.safetensors"
    file.write_bytes(lora_file_bytes(weights, PRECISIONS[precision], {"ss_network_module": "networks.lora"}))
    expected = outputs(kind, trained)
    assert worst(expected, outputs(kind, fresh)) > 0.05  # so that a LoRA that is not there would be seen

    loaded = pipeline(kind, fresh)
    diffusers_logging.enable_propagation()
    loaded.load_lora_weights(file.parent, weight_name=file.name)
    diffusers_logging.disable_propagation()

    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert worst(expected, outputs(kind, fresh)) < tolerance


@pytest.mark.parametrize("base", BASES)
def test_diffusers_fuses_every_layer_as_alpha_by_rank_times_up_times_down(tmp_path: Path, base: str) -> None:
    kind, trained = make_base(base)
    fresh = copy.deepcopy(trained)
    before = copy.deepcopy(trained)
    weights = train(kind, trained)
    names = all_names(kind, before)
    file = tmp_path / "lora.safetensors"
    file.write_bytes(lora_file_bytes(weights, torch.float32, {}))
    loaded = pipeline(kind, fresh)
    loaded.load_lora_weights(file)
    loaded.fuse_lora(components=list(fresh))
    loaded.unload_lora_weights()

    checked = 0
    for part, of_part in names.items():
        for path, name in of_part.items():
            change = fresh[part].get_submodule(path).weight - before[part].get_submodule(path).weight
            layer = weights[name]
            delta = layer.alpha / layer.rank * layer.up.flatten(1) @ layer.down.flatten(1)
            torch.testing.assert_close(change.flatten(1), delta, rtol=0, atol=2e-6)
            checked += 1
    assert checked == len(weights)


@pytest.mark.parametrize("base", BASES)
def test_our_own_file_is_read_back_exactly(tmp_path: Path, base: str) -> None:
    kind, trained = make_base(base)
    again = copy.deepcopy(trained)
    weights = train(kind, trained)
    file = tmp_path / "lora.safetensors"
    file.write_bytes(lora_file_bytes(weights, torch.float32, {"ss_seed": "5"}))

    names = all_names(kind, again)
    found = read_lora_file(file)
    for part, of_part in by_module_path(names, found.weights).items():
        add_lora(again[part], names[part], rank=4, alpha=1, seed=9)
        assert load_lora_weights(again[part], of_part) == ()

    assert found.metadata["ss_seed"] == "5"
    assert worst(outputs(kind, trained), outputs(kind, again)) == 0.0
    with adapter_disabled(*trained.values()), adapter_disabled(*again.values()):
        assert worst(outputs(kind, trained), outputs(kind, again)) == 0.0


def a_layer(alpha: float = 2.0) -> LoraWeights:
    return LoraWeights(torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([[0.5], [0.7]]), alpha)


@pytest.mark.parametrize(("precision", "dtype"), PRECISIONS.items())
def test_every_tensor_has_the_precision_of_the_file(precision: str, dtype: torch.dtype) -> None:
    tensors = lora_tensors({"lora_te_x": a_layer(alpha=0.3)}, PRECISIONS[precision])

    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()} == {
        "lora_te_x.lora_down.weight": (dtype, (1, 3)),
        "lora_te_x.lora_up.weight": (dtype, (2, 1)),
        "lora_te_x.alpha": (dtype, ()),
    }
    assert torch.equal(tensors["lora_te_x.alpha"], torch.tensor(0.3, dtype=dtype))
    assert torch.equal(tensors["lora_te_x.lora_down.weight"], a_layer().down.to(dtype))


def test_channels_last_weights_are_stored_contiguously() -> None:
    down = torch.randn(4, 6, 1, 1).permute(1, 0, 2, 3)
    assert not down.is_contiguous()
    tensors = lora_tensors({"x": LoraWeights(down, torch.ones(2, 6, 1, 1), 1.0)}, torch.float32)
    assert tensors["x.lora_down.weight"].is_contiguous()
    assert torch.equal(tensors["x.lora_down.weight"], down)


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = {"a": a_layer(), "b": a_layer(3)}, {"b": a_layer(3), "a": a_layer()}
    metadata = {f"ss_{number}": str(number) for number in range(20)}
    first = lora_file_bytes(one, torch.float16, metadata)

    assert lora_file_bytes(two, torch.float16, dict(reversed(metadata.items()))) == first
    file = tmp_path / "lora.safetensors"
    file.write_bytes(first)
    with safe_open(file, framework="pt") as opened:
        written = opened.metadata()
    header = json.loads(first[8 : 8 + int.from_bytes(first[:8], "little")])
    assert header["__metadata__"] == written
    assert written.keys() - metadata.keys() == {"sshs_model_hash", "sshs_legacy_hash"}
    body = first[8 + int.from_bytes(first[:8], "little") :]
    assert written["sshs_model_hash"] == hashlib.sha256(body).hexdigest()


def test_a_file_without_alpha_has_scale_one(tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    save_file({"x.lora_down.weight": torch.ones(3, 2).half(), "x.lora_up.weight": torch.ones(2, 3).half()}, file)

    layer = read_lora_file(file).weights["x"]
    assert (layer.alpha, layer.rank, layer.down.dtype) == (3.0, 3, torch.float32)
