"""Taking a LoRA out of a tuned model: what was merged into it comes out again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_trainer.models.adapter_delta import own_change
from lora_trainer.models.adapter_file import read_adapter_file
from tools import extract_lora, merge_lora

TinyPath = Callable[..., Path]
RandomLora = Callable[..., Path]


def extract(original: Path, tuned: Path, output: Path, *words: object) -> int:
    options = ["--original", str(original), "--tuned", str(tuned), "--output", str(output)]
    return extract_lora.main([*options, *map(str, words)])


@pytest.fixture
def tuned(tmp_path: Path, tiny_path: TinyPath) -> Callable[..., Path]:
    """A base model of a kind with a LoRA merged into it, in float32."""

    def make(kind: str, lora: Path, suffix: str = ".safetensors") -> Path:
        path = tmp_path / f"tuned {kind}{suffix}"
        words = [lora, "--base", tiny_path(kind, suffix), "--precision", "float", "--output", path]
        assert merge_lora.main(list(map(str, words))) == 0
        return path

    return make


@pytest.mark.parametrize("kind", ["sd15", "sd21", "sdxl"])
def test_a_lora_that_was_merged_comes_out_again(
    tmp_path: Path, tiny_path: TinyPath, random_lora: RandomLora, tuned: Callable[..., Path], kind: str
) -> None:
    lora = random_lora(kind, rank=3, alpha=3, conv=True)
    out = tmp_path / "out.safetensors"
    words = ["--rank", 3, "--conv-rank", 3, "--clamp-quantile", 1, "--precision", "float"]
    assert extract(tiny_path(kind, ".safetensors"), tuned(kind, lora), out, *words) == 0

    before, after = read_adapter_file(lora), read_adapter_file(out)
    assert after.layers.keys() == before.layers.keys()
    for name, layer in after.layers.items():
        assert (layer.rank, layer.alpha) == (3, 3.0)
        assert [tuple(layer.tensors[end].shape) for end in sorted(layer.tensors)] == [
            tuple(before.layers[name].tensors[end].shape) for end in sorted(layer.tensors)
        ]
        torch.testing.assert_close(own_change(layer), own_change(before.layers[name]), rtol=0, atol=3e-6)
    told = after.metadata
    assert (told["ss_network_dim"], told["ss_network_alpha"], told["ss_output_name"]) == ("3", "3", "out")
    assert told["ss_training_comment"] == f"extracted from tuned {kind}.safetensors - {kind}.safetensors"
    assert after.base_kind == kind
    assert "sshs_model_hash" in told


def test_without_a_convolutions_rank_the_layers_are_those_of_a_standard_lora(
    tmp_path: Path, tiny_path: TinyPath, random_lora: RandomLora, tuned: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    plain = random_lora("sdxl", name="plain").read_bytes()
    lora = random_lora("sdxl", conv=True, name="wide")
    out = tmp_path / "out.safetensors"
    folder = tuned("sdxl", lora, "")
    assert (
        extract(tiny_path("sdxl", ".safetensors"), folder, out, "--rank", 4, "--verbose", "--clamp-quantile", 0.99) == 0
    )  # a folder and a file
    (tmp_path / "plain.safetensors").write_bytes(plain)
    layers = read_adapter_file(out).layers
    assert layers.keys() == read_adapter_file(tmp_path / "plain.safetensors").layers.keys()
    assert {tensor.dtype for layer in layers.values() for tensor in layer.tensors.values()} == {torch.float16}
    said = capsys.readouterr().out.splitlines()
    lines = [line for line in said if "  rank " in line]
    assert len(lines) == len(layers)
    name, rank, _, lost = lines[0].replace("rank", "").replace("max/min", "").replace("lost", "").split()
    assert name in layers
    assert rank == "4"
    assert 0 < float(lost.rstrip("%")) < 15  # what is clamped at the quantile 0.99


def test_ranks_by_singular_values(
    tmp_path: Path, tiny_path: TinyPath, random_lora: RandomLora, tuned: Callable[..., Path]
) -> None:
    lora = random_lora("sd15", rank=4)
    model, out = tuned("sd15", lora), tmp_path / "out.safetensors"
    assert extract(tiny_path("sd15"), model, out, "--sv-fro", 0.8, "--clamp-quantile", 1, "--precision", "float") == 0
    before, after = read_adapter_file(lora).layers, read_adapter_file(out).layers
    ranks = set()
    for name, layer in after.items():
        change = own_change(before[name]).flatten(1)
        rest = (own_change(layer).flatten(1) - change).norm() / change.norm()
        assert rest <= (1 - 0.8**2) ** 0.5 + 1e-3
        ranks.add(layer.rank)
        assert layer.alpha == layer.rank
    assert len(ranks) > 1
    assert read_adapter_file(out).metadata["ss_network_dim"] == "Dynamic"


def test_parts_that_are_the_same_are_left_out(
    tmp_path: Path, tiny_path: TinyPath, capsys: pytest.CaptureFixture[str]
) -> None:
    base, model, out = (tmp_path / f"{name}.safetensors" for name in ("base", "model", "out"))
    tensors = {name: tensor.float() for name, tensor in load_file(tiny_path("sd15", ".safetensors")).items()}
    from safetensors import safe_open

    with safe_open(tiny_path("sd15", ".safetensors"), "pt") as file:
        metadata = file.metadata()
    save_file(tensors, base, metadata)
    save_file({name: tensor.half().float() * 1 for name, tensor in tensors.items()}, model, metadata)
    assert extract(base, model, out, "--rank", 2) == 2
    assert capsys.readouterr().err == (
        f"{model}: no weight differs from {base} enough; give two models that differ, or a smaller --min-diff\n"
    )
    tensors["cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"][0, 0] += 5e-4
    tensors["model.diffusion_model.middle_block.1.proj_in.weight"][0, 0] += 1e-5
    save_file(tensors, model, metadata)
    assert extract(base, model, out, "--rank", 2) == 0
    assert "text_encoder is left out, it is the same in both models (--min-diff 0.001)" in capsys.readouterr().out
    assert {name[:9] for name in read_adapter_file(out).layers} == {"lora_unet"}
    assert extract(base, model, out, "--rank", 2, "--min-diff", 1e-4, "--overwrite") == 0
    assert {name[:9] for name in read_adapter_file(out).layers} == {"lora_unet", "lora_te_t"}


def test_models_that_do_not_belong_together_are_refused(
    tmp_path: Path, tiny_path: TinyPath, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, out = tiny_path("sd15"), tiny_path("sdxl"), tmp_path / "out.safetensors"
    assert extract(one, two, out, "--rank", 2) == 2
    assert f"{one} is Stable Diffusion 1.x and {two} Stable Diffusion XL" in capsys.readouterr().err
    assert extract(one, one, out) == 2
    assert capsys.readouterr().err == "say how large: --rank, --sv-ratio, --sv-fro or --sv-cumulative\n"
    assert extract(one, one / "unet", out, "--rank", 2) == 2
    assert "unet" in capsys.readouterr().err
    assert not out.exists()
