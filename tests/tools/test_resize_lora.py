"""LoRAs with fewer ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_trainer.models.adapter_delta import own_change
from lora_trainer.models.adapter_file import FileLayer, read_adapter_file, write_adapter_file
from lora_trainer.models.adapter_merge import lora_tensors
from lora_trainer.models.kohya_metadata import with_hashes
from tools.resize_lora import main

RandomLora = Callable[..., Path]


def resize(source: Path, output: Path, *words: object) -> int:
    return main([str(source), "--output", str(output), *map(str, words)])


def test_fewer_ranks_at_the_same_scale(
    tmp_path: Path, random_lora: RandomLora, capsys: pytest.CaptureFixture[str]
) -> None:
    lora, out = random_lora("sdxl", rank=6, alpha=3, conv=True), tmp_path / "out.safetensors"
    assert resize(lora, out, "--rank", 4, "--conv-rank", 2, "--verbose") == 0
    before, after = read_adapter_file(lora), read_adapter_file(out)
    assert after.layers.keys() == before.layers.keys()
    for name, layer in after.layers.items():
        wide = layer.kernel == (3, 3)
        assert layer.rank == (2 if wide else 4)
        assert layer.scale == 0.5
        wanted = own_change(before.layers[name]).flatten(1)
        rest = torch.linalg.svdvals(wanted)[layer.rank :].norm()
        assert (own_change(layer).flatten(1) - wanted).norm() == pytest.approx(float(rest), rel=1e-3)
    told = after.metadata
    assert (told["ss_network_dim"], told["ss_network_alpha"]) == ("4", "2")
    assert json.loads(told["ss_network_args"]) == {"conv_dim": "2", "conv_alpha": "1"}
    assert told["ss_training_comment"] == "resized from rank 6 to 2..4"
    assert (told["ss_output_name"], told["ss_base_model_version"]) == ("out", "sdxl_base_v1-0")
    assert told["sshs_model_hash"] == with_hashes(load_file(out), {})["sshs_model_hash"]
    assert told["sshs_model_hash"] != before.metadata["sshs_model_hash"]
    said = capsys.readouterr().out.splitlines()
    assert sum("  rank 6 -> 4 " in line or "  rank 6 -> 2 " in line for line in said) == len(after.layers)
    assert said[-1].startswith(f"{out}: rank 6 -> 2..4, ")


def a_lora(path: Path, values: list[float]) -> Path:
    """A file of one layer whose change has these singular values, at half the scale."""
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(size, size))[0] for size in (12, 10))
    count = len(values)
    up, down = left[:, :count] * torch.tensor(values), right[:count]
    write_adapter_file(path, {"lora_unet_x": FileLayer("lora", lora_tensors(up, down, count / 2, ()))}, None, {})
    return path


@pytest.mark.parametrize(
    ("words", "rank"),
    [
        (["--sv-ratio", 2.5], 2),  # above 8 / 2.5 = 3.2
        (["--sv-ratio", 4.1], 3),
        (["--sv-cumulative", 0.8], 2),  # 12 of 15
        (["--sv-cumulative", 0.81], 3),
        (["--sv-fro", 0.97], 2),  # sqrt(80 / 85) = 0.970
        (["--sv-fro", 0.975], 3),
        (["--sv-fro", 0.975, "--rank", 1], 1),
        (["--sv-cumulative", 1], 4),
    ],
)
def test_ranks_by_singular_values(tmp_path: Path, words: list[object], rank: int) -> None:
    lora, out = a_lora(tmp_path / "a.safetensors", [8, 4, 2, 1]), tmp_path / "b.safetensors"
    assert resize(lora, out, *words) == 0
    layer = read_adapter_file(out).layers["lora_unet_x"]
    assert (layer.rank, layer.scale) == (rank, 0.5)
    values = torch.linalg.svdvals(own_change(layer))[:rank]
    torch.testing.assert_close(values, 0.5 * torch.tensor([8.0, 4, 2, 1])[:rank])


def test_what_has_no_more_ranks_and_what_is_no_lora_stays(tmp_path: Path) -> None:
    lora, out = a_lora(tmp_path / "a.safetensors", [8, 4]), tmp_path / "b.safetensors"
    tensors = {**load_file(lora), "lora_unet_y.w_norm": torch.randn(3), "lora_unet_x.dora_scale": torch.rand(12, 1)}
    save_file(tensors, lora)
    assert resize(lora, out, "--rank", 2) == 0
    found = load_file(out)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_what_cannot_be_resized_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({"lora_unet_x.lokr_w1": torch.ones(2, 2), "lora_unet_x.lokr_w2": torch.ones(2, 2)}, path)
    assert resize(path, out, "--rank", 2) == 2
    assert "lora_unet_x is a LoKr, and only LoRA has ranks to choose from" in capsys.readouterr().err
    save_file({"lora_unet_x.w_norm": torch.ones(2)}, path)
    assert resize(path, out, "--rank", 2) == 2
    assert "there is no LoRA in this file" in capsys.readouterr().err
    assert resize(path, out) == 2
    assert capsys.readouterr().err == "say how small: --rank, --sv-ratio, --sv-fro or --sv-cumulative\n"
    with pytest.raises(SystemExit, match="2"):
        resize(path, out, "--sv-fro", 1.5)
