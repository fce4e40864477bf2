"""A new model has the libraries' own first weights, and is saved and loaded like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.models.base_configs import CONFIGS_KEY
from lora_trainer.models.base_file import base_metadata, write_base_file
from lora_trainer.models.base_folder import save_folder
from lora_trainer.models.base_model import BaseModel, load_base_model
from lora_trainer.models.detect import detect
from lora_trainer.models.ldm_checkpoint import TEXT_PARTS

WIDTHS = {"sdxl": [8, 16, 32], "sd15": [8, 16, 32, 32], "sd21": [8, 16, 32, 32]}


def describe(path: Path, kind: str = "sdxl", **keys: Any) -> Path:
    text = {"hidden_size": 16, "num_hidden_layers": 3, "vocab_size": 600}
    content: dict[str, Any] = {
        "kind": kind,
        "resolution": 64,
        "vae": {"block_out_channels": [8, 8, 16, 16], "layers_per_block": 1},
        "unet": {"block_out_channels": WIDTHS[kind], "layers_per_block": 1},
        "text_encoder": text,
    }
    if kind == "sdxl":
        content["text_encoder_2"] = {"hidden_size": 24, "num_hidden_layers": 2}
        content["unet"] |= {"transformer_layers_per_block": [1, 1, 2], "addition_time_embed_dim": 8}
    path.write_text(json.dumps({**content, **keys}), encoding="utf-8")
    return path


def models(base: BaseModel) -> tuple[Any, ...]:
    return (base.unet, base.vae, *base.text_encoders)


def equal(left: BaseModel, right: BaseModel) -> bool:
    pairs = zip(models(left), models(right), strict=True)
    return all(
        torch.equal(one, other)
        for ours, theirs in pairs
        for one, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("kind", WIDTHS)
def test_it_comes_back_from_a_file_and_a_folder_and_draws(kind: str, tmp_path: Path) -> None:
    base = load_base_model(detect(describe(tmp_path / "new.json", kind)))
    write_base_file(tmp_path / "new.safetensors", base, torch.float32)
    assert equal(base, load_base_model(detect(tmp_path / "new.safetensors")))
    parts: dict[str, Any] = {"unet": base.unet, "vae": base.vae}
    for text, encoder, tokenizer in zip(TEXT_PARTS[base.kind], base.text_encoders, base.tokenizers, strict=True):
        parts |= {text.name: encoder, text.tokenizer: tokenizer}
    (tmp_path / "folder").mkdir()
    save_folder(tmp_path / "folder", base.kind, parts, base.configs["scheduler"])
    assert equal(base, load_base_model(detect(tmp_path / "folder")))
    assert len({path.stat().st_mode for path in (tmp_path / "folder").rglob("*") if path.is_file()}) == 1
    pipeline = DiffusionPipeline.from_pretrained(str(tmp_path / "folder"))
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a cat", num_inference_steps=1, guidance_scale=2).images[0]
    assert picture.size == (64, 64)


def test_nothing_tells_where_on_this_computer_a_model_came_from(tmp_path: Path) -> None:
    base = load_base_model(detect(describe(tmp_path / "new.json")))
    for name in ("first", "second"):  # the second is of what was loaded from the first
        (tmp_path / name).mkdir()
        save_folder(tmp_path / name, base.kind, base.parts, base.configs["scheduler"])
        base = load_base_model(detect(tmp_path / name))
    written = [path for path in (tmp_path / "second").rglob("*") if path.suffix in (".json", ".txt")]
    assert len(written) > 6
    assert [path for path in written if str(tmp_path) in path.read_text(encoding="utf-8")] == []
    write_base_file(tmp_path / "file.safetensors", base, torch.float32)
    assert str(tmp_path).encode() not in (tmp_path / "file.safetensors").read_bytes()


def test_the_weights_are_a_function_of_the_seed_alone(tmp_path: Path) -> None:
    path = describe(tmp_path / "new.json")
    torch.manual_seed(1)
    first = load_base_model(detect(path))
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1)), "PyTorch's own generator was moved"
    torch.set_num_threads(2)
    try:
        assert equal(first, load_base_model(detect(path)))
    finally:
        torch.set_num_threads(1)
    assert not equal(first, load_base_model(detect(describe(path, seed=1))))


def test_its_latents_are_not_drowned_in_noise(tmp_path: Path) -> None:
    vae = load_base_model(detect(describe(tmp_path / "new.json"))).vae
    with torch.no_grad():
        posterior = vae.encode(torch.rand(2, 3, 32, 32, generator=torch_generator("pictures")) * 2 - 1).latent_dist
    assert 0.01 < posterior.std.mean() < 0.2


def test_it_is_frozen_and_as_exact_as_is_asked_for(tmp_path: Path) -> None:
    base = load_base_model(detect(describe(tmp_path / "new.json")), dtype=torch.bfloat16)
    assert [model.dtype for model in models(base)] == [torch.bfloat16, torch.float32, torch.bfloat16, torch.bfloat16]
    assert not any(weight.requires_grad for model in models(base) for weight in model.parameters())
    assert not any(model.training for model in models(base))


def test_a_trained_vae_is_taken_from_a_complete_model(tmp_path: Path) -> None:
    first = load_base_model(detect(describe(tmp_path / "first.json")))
    write_base_file(tmp_path / "first.safetensors", first, torch.float32)
    second = load_base_model(detect(describe(tmp_path / "second.json", seed=1, vae="first.safetensors")))
    for name, weight in second.vae.state_dict().items():
        assert torch.equal(weight, first.vae.state_dict()[name]), name
    assert second.configs["vae"]["block_out_channels"] == [8, 8, 16, 16]
    assert not torch.equal(second.unet.conv_in.weight, first.unet.conv_in.weight)
    write_base_file(tmp_path / "second.safetensors", second, torch.float32)
    assert equal(second, load_base_model(detect(tmp_path / "second.safetensors")))


def test_a_vae_of_other_latents_is_refused(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    other = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=16)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(Refusal, match=r"this VAE's latents do not have 4 channels; give another one"):
        load_base_model(detect(describe(tmp_path / "new.json", vae="other")))


@pytest.mark.parametrize(
    ("unet", "carried"),
    [
        ({"norm_num_groups": 16}, True),
        ({"attention_head_dim": [10, 10, 20]}, True),
        ({"transformer_layers_per_block": [1, 2, 10]}, False),
        ({"sample_size": 64}, False),
    ],
)
def test_a_file_carries_what_its_shapes_do_not_tell(tmp_path: Path, unet: dict[str, Any], carried: bool) -> None:
    """Of a model whose tensors have the published shapes, other heads and groups are still another model."""
    from lora_trainer.models.fresh_description import read_description

    path = tmp_path / "new.json"
    path.write_text(json.dumps({"kind": "sdxl", "unet": unet}))
    configs = read_description(path).configs
    base = BaseModel("sdxl", "epsilon", False, configs, None, None, (), ())
    assert (CONFIGS_KEY in base_metadata(base)) == carried
