"""A base model is the same from a folder and from a file of either format, and nothing in a file is executed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_trainer.errors import Refusal
from lora_trainer.models.base_configs import CONFIGS_KEY
from lora_trainer.models.base_file import base_metadata, base_tensors, write_base_file
from lora_trainer.models.base_model import BaseModel, load_base_model
from lora_trainer.models.detect import check_agreement, detect
from lora_trainer.models.safetensors_bytes import safetensors_bytes
from lora_trainer.models.safetensors_header import read_header
from lora_trainer.models.tiny_models import TINY_KINDS, tiny_base

TinyPath = Callable[..., Path]
TEXT = "a photo of a café, 1girl!"


def _load(path: Path, dtype: torch.dtype = torch.float16, **more: Any) -> BaseModel:
    return load_base_model(detect(path), dtype=dtype, vae_dtype=dtype, **more)


def _models(base: BaseModel) -> tuple[Any, ...]:
    return (base.unet, base.vae, *base.text_encoders)


def _assert_equal(left: BaseModel, right: BaseModel) -> None:
    assert (left.kind, left.prediction, left.zero_terminal_snr) == (
        right.kind,
        right.prediction,
        right.zero_terminal_snr,
    )
    for one, other in zip(_models(left), _models(right), strict=True):
        ours, theirs = one.state_dict(), other.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def _encodings(base: BaseModel) -> list[torch.Tensor]:
    found = []
    for tokenizer, encoder in zip(base.tokenizers, base.text_encoders, strict=True):
        ids = tokenizer(TEXT, padding="max_length", max_length=77, return_tensors="pt").input_ids
        found.append(encoder(ids, output_hidden_states=True).hidden_states[-2])
    return found


def _refusal(call: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as refusal:
        call()
    return str(refusal.value)


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_folder_and_files_hold_the_same_model(kind: str, tiny_path: TinyPath) -> None:
    made = tiny_base(kind)
    for model in _models(made):
        model.float()  # exact, and what a CPU computes with
    encodings = _encodings(made)
    for suffix in ("", ".safetensors", ".ckpt"):
        loaded = _load(tiny_path(kind, suffix), torch.float32)
        _assert_equal(loaded, made)
        tensors = [tensor for model in _models(loaded) for tensor in (*model.parameters(), *model.buffers())]
        assert not any(tensor.is_meta for tensor in tensors)
        assert all(torch.equal(one, other) for one, other in zip(_encodings(loaded), encodings, strict=True))


@pytest.mark.parametrize("kind", ["sdxl-v", "sd15", "sd21"])
def test_a_folder_written_as_a_file_is_the_file(kind: str, tmp_path: Path, tiny_path: TinyPath) -> None:
    write_base_file(tmp_path / "again.safetensors", _load(tiny_path(kind)), torch.float16)
    again, first = read_header(tmp_path / "again.safetensors"), read_header(tiny_path(kind, ".safetensors"))
    assert again.shapes == first.shapes
    left, right = load_file(tmp_path / "again.safetensors"), load_file(tiny_path(kind, ".safetensors"))
    assert all(torch.equal(left[name], right[name]) for name in right)


def test_precisions_and_pads(tiny_path: TinyPath) -> None:
    base = load_base_model(detect(tiny_path("sdxl", ".safetensors")), dtype=torch.bfloat16)
    assert [model.dtype for model in _models(base)] == [torch.bfloat16, torch.float32, torch.bfloat16, torch.bfloat16]
    assert not any(tensor.requires_grad for model in _models(base) for tensor in model.parameters())
    assert [tokenizer.pad_token for tokenizer in base.tokenizers] == ["<|endoftext|>", "!"]
    assert base.vae.config.scaling_factor == 0.13025
    folder = load_base_model(detect(tiny_path("sdxl")), dtype=torch.bfloat16)
    assert [model.dtype for model in _models(folder)] == [model.dtype for model in _models(base)]
    assert [tokenizer.pad_token for tokenizer in folder.tokenizers] == ["<|endoftext|>", "!"]


def test_training_in_place_leaves_the_file_alone(tiny_path: TinyPath, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_path("sd15", ".safetensors"), tmp_path))
    before = hashlib.sha256(path.read_bytes()).digest()
    unet = _load(path).unet
    with torch.no_grad():
        for tensor in unet.parameters():
            tensor.add_(1)
    assert hashlib.sha256(path.read_bytes()).digest() == before


def test_leftovers_in_old_checkpoints_are_ignored(tmp_path: Path, tiny_path: TinyPath) -> None:
    source = tiny_path("sd15", ".safetensors")
    tensors = load_file(source)
    text = "cond_stage_model.transformer."
    old = {name.replace(f"{text}text_model.", text): tensor for name, tensor in tensors.items()}  # before 2023
    old |= {
        f"{text}embeddings.position_ids": torch.arange(77)[None],
        "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(1),
        "first_stage_model.loss.logvar": torch.zeros(1),
        "alphas_cumprod": torch.zeros(1000),
    }
    path = tmp_path / "old.safetensors"
    path.write_bytes(safetensors_bytes(old, read_header(source).metadata))
    _assert_equal(_load(path), tiny_base("sd15"))


def test_a_checkpoint_of_another_architecture_is_refused_with_names(tmp_path: Path, tiny_path: TinyPath) -> None:
    source = tiny_path("sd15", ".safetensors")
    tensors = load_file(source)
    del tensors["model.diffusion_model.out.2.bias"]
    path = tmp_path / "less.safetensors"
    path.write_bytes(safetensors_bytes(tensors, read_header(source).metadata))
    assert _refusal(lambda: _load(path)) == (
        f"{path} (unet): conv_out.bias is missing; the checkpoint is incomplete or of another architecture"
    )


def test_a_checkpoint_without_vae_needs_one(tmp_path: Path, tiny_path: TinyPath) -> None:
    source = tiny_path("sd15", ".safetensors")
    kept = {name: tensor for name, tensor in load_file(source).items() if not name.startswith("first_stage_model.")}
    path = tmp_path / "no vae.safetensors"
    path.write_bytes(safetensors_bytes(kept, read_header(source).metadata))
    assert _refusal(lambda: _load(path)) == f'{path}: there is no VAE in this checkpoint; give one with "vae"'
    _assert_equal(_load(path, vae=source), tiny_base("sd15"))


# ------------------------------------------------------------------------------------------------------------- .ckpt


def test_a_ckpt_is_checked_when_it_is_read(tiny_path: TinyPath) -> None:
    path = tiny_path("sd21-v", ".ckpt")
    asked = check_agreement(detect(path), sdxl=False, v2=True, v_parameterization=True)
    assert load_base_model(asked).prediction == "v_prediction"
    wrong_kind = check_agreement(detect(path), sdxl=True, v2=False, v_parameterization=True)
    assert "a Stable Diffusion 2.x model" in _refusal(lambda: load_base_model(wrong_kind))
    wrong_prediction = replace(asked, prediction="epsilon")
    assert 'set "v_parameterization": true' in _refusal(lambda: load_base_model(wrong_prediction))


def test_a_ckpt_may_be_flat_or_of_the_old_format(tmp_path: Path) -> None:
    base = tiny_base("sd15")
    content = {**base_tensors(base, torch.float16), **base_metadata(base), "global_step": 7}
    for name, zipped in (("zip.ckpt", True), ("old.pt", False)):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
        _assert_equal(_load(tmp_path / name), base)


class _Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("form", ["zip", "old", "plain pickle"])
def test_code_in_a_ckpt_is_not_executed(form: str, tmp_path: Path) -> None:
    path, marker = tmp_path / "evil.ckpt", tmp_path / "executed"
    content = {"state_dict": {"a": torch.zeros(1)}, "callback": _Malicious(marker)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(_Malicious(marker), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    assert _refusal(lambda: _load(path)) == (
        f"{path}: the file holds Python objects besides tensors, which could run any program when opened, so it is not "
        "opened; convert it to .safetensors with a tool you trust"
    )
    assert not marker.exists()


def test_damaged_files(tmp_path: Path, tiny_path: TinyPath) -> None:
    whole = tiny_path("sd15", ".safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[:-1])
    assert "the file is incomplete" in _refusal(lambda: _load(cut))
    overlapping = tmp_path / "overlap.safetensors"
    save_file({"a": torch.zeros(2), "b": torch.ones(2)}, overlapping)
    overlapping.write_bytes(overlapping.read_bytes().replace(b"[8,16]", b"[0,16]"))
    checkpoint = replace(detect(tiny_path("sd15", ".safetensors")), path=overlapping)
    assert "the .safetensors file is damaged (" in _refusal(lambda: load_base_model(checkpoint))
    listed = tmp_path / "list.ckpt"
    torch.save([torch.zeros(1)], listed)
    assert _refusal(lambda: _load(listed)) == (f"{listed}: the file holds a list, not named tensors; give a base model")
    torn = tmp_path / "torn.ckpt"
    archive = bytearray(tiny_path("sd15", ".ckpt").read_bytes())
    start = archive.index(b"data.pkl") + 64
    archive[start : start + 256] = bytes(256)
    torn.write_bytes(archive)
    assert str(torn) in _refusal(lambda: _load(torn))


# ------------------------------------------------------------------------------------------------------ other folders


def _copy(folder: Path, out: Path) -> Path:
    return Path(shutil.copytree(folder, out))


def test_half_precision_files_serve_when_there_are_no_others(tmp_path: Path, tiny_path: TinyPath) -> None:
    folder = _copy(tiny_path("sdxl"), tmp_path / "half")
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_name(f"{file.stem}.fp16{file.suffix}"))
    _assert_equal(_load(folder), tiny_base("sdxl"))


def test_a_folder_with_a_damaged_part(tmp_path: Path, tiny_path: TinyPath) -> None:
    folder = _copy(tiny_path("sd15"), tmp_path / "damaged")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["conv_in.bias"]
    save_file(tensors, weights, {"format": "pt"})
    assert "1 tensors are missing, for example conv_in.bias" in _refusal(lambda: _load(folder))
    weights.write_bytes(b"nothing")
    assert _refusal(lambda: _load(folder)).startswith(f"{folder / 'unet'}: this part cannot be loaded (")


def test_a_folder_without_tokenizer_gets_clips_and_a_broken_one_is_refused(tmp_path: Path, tiny_path: TinyPath) -> None:
    folder = _copy(tiny_path("sdxl"), tmp_path / "tokenizers")
    shutil.rmtree(folder / "tokenizer")
    assert _load(folder).tokenizers[0](TEXT).input_ids == tiny_base("sdxl").tokenizers[0](TEXT).input_ids
    for file in (folder / "tokenizer_2").iterdir():
        file.unlink()
    assert _refusal(lambda: _load(folder)) == (
        f"{folder / 'tokenizer_2'}: the tokenizer knows 2 tokens and the text encoder 2048; "
        "copy the tokenizer's files again, or delete the folder to use CLIP's own"
    )


def test_metadata_of_a_file(tiny_path: TinyPath) -> None:
    metadata = read_header(tiny_path("sd21-v", ".safetensors")).metadata
    assert metadata["modelspec.architecture"] == "stable-diffusion-v2-768-v"
    assert metadata["modelspec.prediction_type"] == "v"
    assert json.loads(metadata[CONFIGS_KEY])["kind"] == "sd21"
    shapes = read_header(tiny_path("sdxl-v", ".safetensors")).shapes
    assert (shapes["v_pred"], shapes["ztsnr"]) == ((0,), (0,))


# ------------------------------------------------------------------------------------- written as the file it came from


def test_a_written_file_has_the_names_of_the_file_it_came_from(tmp_path: Path, tiny_path: TinyPath) -> None:
    source = tiny_path("sd15", ".safetensors")
    text, average = "cond_stage_model.transformer.", "model_ema.diffusion_modelinput_blocks00weight"
    old = {name.replace(f"{text}text_model.", text): tensor for name, tensor in load_file(source).items()}
    old |= {
        f"{text}embeddings.position_ids": torch.arange(77)[None],
        average: torch.zeros_like(old["model.diffusion_model.input_blocks.0.0.weight"]),
        "model_ema.decay": torch.tensor(0.9999),
        "alphas_cumprod": torch.rand(1000),
    }
    path, written = tmp_path / "old.safetensors", tmp_path / "größe.safetensors"
    path.write_bytes(safetensors_bytes(old, read_header(source).metadata))
    base = _load(path, torch.float32)
    with torch.no_grad():
        weight = base.unet.conv_in.weight
        weight.copy_((weight + 1).half())
    write_base_file(written, base, torch.float16, path)
    found = load_file(written)
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tensor.shape for name, tensor in old.items()
    }
    first = "model.diffusion_model.input_blocks.0.0.weight"
    assert torch.equal(found[first], old[first] + 1)
    assert torch.equal(found[average], found[first])
    assert found[f"{text}embeddings.position_ids"].dtype == torch.int64
    assert torch.equal(found["alphas_cumprod"], old["alphas_cumprod"].half())
    same = [name for name in old if name not in (first, average) and not name.startswith("model_ema")]
    assert all(torch.equal(found[name], old[name].to(found[name].dtype)) for name in same)
    _assert_equal(_load(written, torch.float32), base)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("kind", ["sd15", "sd21-v", "sdxl-v"])
def test_a_file_written_again_is_the_same_model(kind: str, suffix: str, tmp_path: Path, tiny_path: TinyPath) -> None:
    source, written = tiny_path(kind, ".safetensors"), tmp_path / f"again{suffix}"
    base = _load(source)
    write_base_file(written, base, torch.float16, source)
    _assert_equal(_load(written), base)
    if suffix == ".safetensors":
        assert read_header(written).shapes == read_header(source).shapes
