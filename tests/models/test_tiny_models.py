"""The tiny base models are small, the same on every run, and react to text and time like real ones."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_trainer.models.base_configs import published_configs
from lora_trainer.models.base_model import BaseModel, load_base_model
from lora_trainer.models.detect import detect
from lora_trainer.models.tiny_models import TINY_KINDS, make_tiny_model, tiny_base, tiny_configs


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_size_and_structure(kind: str) -> None:
    base = tiny_base(kind)
    models: tuple[Any, ...] = (base.unet, base.vae, *base.text_encoders)
    assert sum(tensor.numel() for model in models for tensor in model.parameters()) * 2 < 2_500_000  # bytes in fp16
    published = published_configs(TINY_KINDS[kind].kind)
    for part in ("unet", "vae"):
        for key in ("down_block_types", "up_block_types", "layers_per_block"):
            assert tiny_configs(kind)[part][key] == published[part][key]
    assert len(tiny_configs(kind)["vae"]["block_out_channels"]) == 4
    assert base.vae.config.scaling_factor == published["vae"]["scaling_factor"]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_tiny_model("sdxl", tmp_path / f"{name}.safetensors", single_file=True, seed=seed)
    digests = [hashlib.sha256((tmp_path / f"{name}.safetensors").read_bytes()).hexdigest() for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_the_weights_of_seed_0_are_these() -> None:
    """They feed recorded numbers elsewhere, so that a change here must be meant."""
    weight = tiny_base("sd15").unet.conv_in.weight
    bias = tiny_base("sdxl").text_encoders[1].state_dict()["text_model.encoder.layers.9.mlp.fc2.bias"]
    assert weight.flatten()[:3].tolist() == [0.283935546875, 0.133056640625, 0.14453125]
    assert bias[:3].tolist() == [0.0182647705078125, 0.005847930908203125, 0.02093505859375]


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _prediction(base: BaseModel, text: str, time: int) -> Tensor:
    hidden, more = [], {}
    for tokenizer, encoder in zip(base.tokenizers, base.text_encoders, strict=True):
        ids = tokenizer(text, padding="max_length", max_length=77, return_tensors="pt").input_ids
        output = encoder(ids, output_hidden_states=True)
        hidden.append(output.hidden_states[-2])
        if base.kind == "sdxl" and "text_embeds" in output:
            more = {"text_embeds": output.text_embeds, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
    return base.unet(_noise(1, 4, 8, 8), time, torch.cat(hidden, -1), added_cond_kwargs=more).sample


@pytest.mark.parametrize("kind", TINY_KINDS)
@torch.no_grad()
def test_predictions_depend_on_text_and_time(kind: str, tmp_path: Path) -> None:
    make_tiny_model(kind, tmp_path / "m.safetensors", single_file=True)
    base = load_base_model(detect(tmp_path / "m.safetensors"))
    first = _prediction(base, "a photo of a cat", 500)
    assert 0.05 < first.std() < 1
    other_text = (_prediction(base, "blue hair, smile", 500) - first).std() / first.std()
    other_time = (_prediction(base, "a photo of a cat", 20) - first).std() / first.std()
    assert other_text > 0.05
    assert other_time > 0.01


@torch.no_grad()
def test_latents_are_of_the_usual_size_and_images_of_theirs() -> None:
    vae = tiny_base("sdxl").vae.float()
    image = torch.nn.functional.interpolate(_noise(2, 3, 8, 8), (64, 64), mode="bicubic").clamp(-1, 1)
    encoded = vae.encode(image).latent_dist
    latents = encoded.mean * vae.config.scaling_factor
    assert latents.shape == (2, 4, 8, 8)
    assert 0.3 < latents.std() < 3
    assert encoded.std.max() < 0.1
    assert vae.decode(encoded.mean).sample.abs().max() < 4


@torch.no_grad()
def test_half_precision_does_not_overflow() -> None:
    base = tiny_base("sd15")
    text = base.text_encoders[0](torch.tensor([[2046, 320, 2047]])).last_hidden_state
    assert base.unet(_noise(1, 4, 8, 8).half(), 999, text).sample.isfinite().all()


def test_a_folder_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError):
        make_tiny_model("sd15", tmp_path / "there", single_file=False)
