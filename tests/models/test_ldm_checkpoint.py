"""diffusers reads our single files with its own converter and finds the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from lora_trainer.models.ldm_checkpoint import to_diffusers, to_ldm
from lora_trainer.models.tiny_models import TINY_KINDS, tiny_base, tiny_configs

TinyPath = Callable[..., Path]


@pytest.mark.parametrize("kind", ["sdxl", "sd15", "sd21", "sd21-v"])
def test_diffusers_own_converter_agrees(kind: str, tiny_path: TinyPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    sdxl = TINY_KINDS[kind].kind == "sdxl"
    pipeline: Any = StableDiffusionXLPipeline if sdxl else StableDiffusionPipeline
    loaded = pipeline.from_single_file(
        str(tiny_path(kind, ".safetensors")),
        config=str(tiny_path(kind)),
        local_files_only=True,
        torch_dtype=torch.float16,
        **({} if sdxl else {"safety_checker": None}),
    )
    made = tiny_base(kind)
    encoders = (loaded.text_encoder, loaded.text_encoder_2) if sdxl else (loaded.text_encoder,)
    tokenizers = (loaded.tokenizer, loaded.tokenizer_2) if sdxl else (loaded.tokenizer,)
    models = zip((made.unet, made.vae, *made.text_encoders), (loaded.unet, loaded.vae, *encoders), strict=True)
    for ours, theirs in models:
        expected, found = ours.state_dict(), theirs.state_dict()
        assert found.keys() == expected.keys()
        assert not any(tensor.is_meta for tensor in theirs.parameters())
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    for ours, theirs in zip(made.tokenizers, tokenizers, strict=True):
        assert theirs("a café, 1girl!").input_ids == ours("a café, 1girl!").input_ids
        assert theirs.pad_token_id == ours.pad_token_id
    assert loaded.scheduler.config.prediction_type == TINY_KINDS[kind].prediction


def test_either_spelling_of_the_text_encoders_gives_the_same_checkpoint() -> None:
    base, configs = tiny_base("sdxl"), tiny_configs("sdxl")
    parts = {"unet": base.unet.state_dict(), "vae": base.vae.state_dict()}
    spelled = []
    for prefix in ("", "text_model."):
        texts = {}
        for name, encoder in zip(("text_encoder", "text_encoder_2"), base.text_encoders, strict=True):
            plain = {key.removeprefix("text_model."): tensor for key, tensor in encoder.state_dict().items()}
            texts[name] = {
                key if key.startswith("text_projection") else prefix + key: tensor for key, tensor in plain.items()
            }
        spelled.append(to_ldm("sdxl", configs, {**parts, **texts}))
    assert spelled[0].keys() == spelled[1].keys()
    assert "conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight" in spelled[0]


def test_there_and_back_is_the_same() -> None:
    base, configs = tiny_base("sd21"), tiny_configs("sd21")
    parts = {
        "unet": base.unet.state_dict(),
        "vae": base.vae.state_dict(),
        "text_encoder": base.text_encoders[0].state_dict(),
    }
    checkpoint = to_ldm("sd21", configs, parts)
    assert checkpoint["first_stage_model.encoder.mid.attn_1.q.weight"].shape == (16, 16, 1, 1)
    back = to_diffusers("sd21", configs, checkpoint)
    assert back.keys() == parts.keys()
    for name, part in parts.items():
        assert back[name].keys() == part.keys()
        assert all(torch.equal(back[name][key], part[key]) for key in part)
