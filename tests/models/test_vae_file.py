"""A separate VAE takes the place of the base model's own, whatever layout it comes in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.models.base_model import load_base_model
from lora_trainer.models.detect import detect
from lora_trainer.models.tiny_models import make_tiny_model, tiny_base, tiny_configs
from lora_trainer.models.vae_file import load_vae

TinyPath = Callable[..., Path]
PREFIX = "first_stage_model."


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model with other weights than the fixture's."""
    path = tmp_path_factory.mktemp("other") / "other"
    make_tiny_model("sd15", path, single_file=False, seed=1)
    make_tiny_model("sd15", path.with_suffix(".safetensors"), single_file=True, seed=1)
    return path


def _ldm(other: Path) -> dict[str, Tensor]:
    tensors = load_file(other.with_suffix(".safetensors"))
    return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}


def _old_diffusers(other: Path) -> dict[str, Tensor]:
    found = load_file(other / "vae" / "diffusion_pytorch_model.safetensors")
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        found = {name.replace(f"attentions.0.{new}", f"attentions.0.{old}"): tensor for name, tensor in found.items()}
    return found


def _assert_other(vae: Any) -> None:
    expected = tiny_base("sd15", seed=1).vae.state_dict()
    found = vae.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name].float()) for name in expected)
    assert vae.dtype == torch.float32


CONFIG = tiny_configs("sd15")["vae"]


def test_every_layout(other: Path, tmp_path: Path) -> None:
    ldm, old = _ldm(other), _old_diffusers(other)
    flat = {
        name: tensor.flatten(1) if ".attn_1." in name and tensor.ndim == 4 else tensor for name, tensor in ldm.items()
    }
    assert "encoder.mid_block.attentions.0.query.weight" in old
    assert flat["encoder.mid.attn_1.q.weight"].ndim == 2
    save_file(ldm, tmp_path / "ldm.safetensors")
    save_file(flat, tmp_path / "flat.safetensors")
    save_file({f"vae.{name}": tensor for name, tensor in ldm.items()}, tmp_path / "prefixed.safetensors")
    save_file(old, tmp_path / "old.safetensors")
    torch.save({"state_dict": {**ldm, "loss.logvar": torch.zeros(1)}}, tmp_path / "vae.pt")
    files = (*(tmp_path / name for name in ("ldm", "flat", "prefixed", "old")), tmp_path / "vae")
    suffixes = (".safetensors",) * 4 + (".pt",)
    for file, suffix in zip(files, suffixes, strict=True):
        _assert_other(load_vae(file.with_suffix(suffix), CONFIG, torch.float32))
    for path in (other, other / "vae", other.with_suffix(".safetensors")):
        _assert_other(load_vae(path, CONFIG, torch.float32))


@pytest.mark.parametrize("suffix", ["", ".safetensors"])
def test_it_replaces_the_vae_of_file_and_folder(suffix: str, other: Path, tiny_path: TinyPath) -> None:
    base = load_base_model(detect(tiny_path("sd15", suffix)), vae=other / "vae")
    _assert_other(base.vae)
    assert torch.equal(base.unet.conv_in.weight, tiny_base("sd15").unet.conv_in.weight.float())


def _refusal(path: Path) -> str:
    with pytest.raises(Refusal) as refusal:
        load_vae(path, CONFIG, torch.float32)
    return str(refusal.value)


def test_refusals(other: Path, tmp_path: Path) -> None:
    absent = tmp_path / "none.safetensors"
    assert _refusal(absent) == (
        f"{absent}: there is no such VAE; correct the path, or leave it empty for the base model's own"
    )
    strange = tmp_path / "strange.safetensors"
    save_file({"a": torch.zeros(1)}, strange)
    assert _refusal(strange) == (
        f"{strange}: there is no VAE in this file; give one, or leave the path empty for the base model's own"
    )
    assert f"{other / 'unet'}: this folder holds no VAE" in _refusal(other / "unet")
    wide = {
        name: torch.cat([tensor, tensor]) if name == "quant_conv.bias" else tensor
        for name, tensor in _ldm(other).items()
    }
    save_file(wide, tmp_path / "wide.safetensors")
    assert "quant_conv.bias has the shape (16,) instead of (8,)" in _refusal(tmp_path / "wide.safetensors")
