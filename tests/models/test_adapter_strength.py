"""A LoRA in live models does what the same LoRA merged into their file does, and leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lora_trainer.errors import Refusal
from lora_trainer.models.adapter_file import read_adapter_file
from lora_trainer.models.adapter_strength import live_adapter
from lora_trainer.models.base_model import BaseModel, load_base_model
from lora_trainer.models.detect import detect
from tools import merge_lora


def weights_of(base: BaseModel) -> dict[str, torch.Tensor]:
    return {
        f"{index} {name}": weight.detach().clone()
        for index, model in enumerate((base.unet, *base.text_encoders))
        for name, weight in model.named_parameters()
    }


@pytest.mark.parametrize("kind", ["sdxl", "sd15"])
def test_it_is_the_merge_at_that_strength(
    tmp_path: Path,
    tiny_path: Callable[..., Path],
    random_lora: Callable[..., Path],
    kind: str,
) -> None:
    lora = random_lora(kind, conv=True)
    source = tiny_path(kind, ".safetensors")
    merged = tmp_path / "merged.safetensors"
    words = [lora, "--base", source, "--ratio", 0.5, "--precision", "float", "--output", merged]
    assert merge_lora.main([str(word) for word in words]) == 0
    expected = weights_of(load_base_model(detect(merged)))
    base = load_base_model(detect(source))
    before = weights_of(base)
    adapter = live_adapter(base, read_adapter_file(lora))
    with adapter.at_strength(0.5):
        within = weights_of(base)
    assert any(not torch.equal(within[name], before[name]) for name in before)
    for name, weight in expected.items():
        torch.testing.assert_close(within[name], weight, atol=1e-6, rtol=0)
    after = weights_of(base)
    assert all(torch.equal(after[name], before[name]) for name in before)
    with adapter.at_strength(0):
        assert all(torch.equal(weight, before[name]) for name, weight in weights_of(base).items())


def test_files_for_other_models_are_refused(
    tiny_path: Callable[..., Path],
    random_lora: Callable[..., Path],
) -> None:
    base = load_base_model(detect(tiny_path("sd15")))
    with pytest.raises(Refusal, match=r"is for Stable Diffusion XL and the base model is Stable Diffusion 1\.x"):
        live_adapter(base, read_adapter_file(random_lora("sdxl")))
