"""What is shown of a file, to a person and to programs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lora_trainer.models.adapter_file import FileLayer, read_adapter_file, write_adapter_file
from tools.show_metadata import main

TinyPath = Callable[..., Path]
RandomLora = Callable[..., Path]

TRAINING = {
    "ss_sd_model_name": "sdxl.safetensors",
    "ss_network_module": "networks.lora",
    "ss_network_dim": "4",
    "ss_learning_rate": "0.0001",
    "ss_text_encoder_lr": "None",
    "ss_training_started_at": "1700000000.5",
    "ss_dataset_dirs": '{"2_cat": {"n_repeats": 2, "img_count": 13}}',
    "ss_bucket_info": json.dumps(
        {"buckets": {"0": {"resolution": [96, 128], "count": 3}, "1": {"resolution": [64, 64], "count": 9}}}
    ),
    "ss_tag_frequency": '{"2_cat": {"cat": 13, "sofa": 4}, "1_dog": {"dog": 5, "sofa": 2, "grass": 1}}',
    "ss_random_crop": "False",
    "my_own": "entry",
}


@pytest.fixture
def lora(random_lora: RandomLora) -> Path:
    path = random_lora("sdxl", rank=4)
    file = read_adapter_file(path)
    write_adapter_file(path, file.layers, torch.float16, {**file.metadata, **TRAINING})
    return path


def shown(capsys: pytest.CaptureFixture[str], *words: object, status: int = 0) -> dict[str, str]:
    """The lines by their first words."""
    assert main(list(map(str, words))) == status
    lines = capsys.readouterr().out.splitlines()
    return {line[2:26].strip(): line[26:] for line in lines if line.startswith("  ")}


def test_a_training_is_told_to_a_person(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = len(read_adapter_file(lora).layers)
    lines = shown(capsys, lora, "--tags", 3)
    assert lines.pop("size").endswith(f" MB, {3 * layers} tensors ({3 * layers} F16)")
    assert lines == {
        "is": "LoRA for Stable Diffusion XL",
        "layers": f"{layers} LoRA",
        "ranks": f"4 ({layers})",
        "sshs_model_hash": "right",
        "title": "lora",
        "base model": "sdxl.safetensors",
        "base version": "sdxl_base_v1-0",
        "predicts": "epsilon",
        "network": "networks.lora",
        "rank": "4",
        "alpha": "2",
        "learning rate": "0.0001",
        "started": "2023-11-14 22:13 UTC",
        "folder": "2_cat: 13 images, 2 times",
        "buckets": "64x64 (9), 96x128 (3)",
        "tags": "cat (13), sofa (6), dog (5)",
        "": "and 1 more (--tags 4)",
        "my_own": "entry",
        "further entries": "3 (--all shows them)",
    }
    everything = shown(capsys, lora, "--all")
    assert everything["ss_random_crop"] == "False"
    assert "further entries" not in everything


def test_everything_is_told_to_programs(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(lora), str(lora), "--json"]) == 0
    one, two = json.loads(capsys.readouterr().out)
    assert one == two
    assert (one["kind"], one["ranks"], one["hashes_right"]) == (
        "LoRA for Stable Diffusion XL",
        {"4": len(read_adapter_file(lora).layers)},
        {"sshs_model_hash": True},
    )
    assert one["metadata"]["ss_tag_frequency"]["2_cat"] == {"cat": 13, "sofa": 4}
    assert one["metadata"]["ss_network_dim"] == "4"
    assert one["bytes"] == lora.stat().st_size


def test_a_changed_file_is_seen(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(lora.read_bytes())
    data[-1] ^= 1
    lora.write_bytes(data)
    assert shown(capsys, lora, status=1)["sshs_model_hash"].startswith("WRONG")
    assert "sshs_model_hash" not in shown(capsys, lora, "--no-hash")


def test_other_kinds_and_files(
    tmp_path: Path, tiny_path: TinyPath, model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    loha = {end: torch.ones(2, 2) for end in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")}
    mixed = {"lora_unet_x": FileLayer("loha", loha), "lora_unet_y": FileLayer("norm", {"w_norm": torch.ones(3)})}
    write_adapter_file(tmp_path / "mixed.safetensors", mixed, None, {})
    lines = shown(capsys, tmp_path / "mixed.safetensors")
    assert (lines["is"], lines["layers"], lines["ranks"]) == ("LoRA", "1 LoHa, 1 norm", "2 (1)")

    assert shown(capsys, tiny_path("sdxl-v", ".safetensors"))["is"] == (
        "Stable Diffusion XL model, predicts v_prediction"
    )
    assert shown(capsys, tiny_path("sd15", ".ckpt"))["is"] == "Stable Diffusion 1.x model, predicts epsilon"
    upscaler = shown(capsys, model("compact", 2, num_feat=8))
    assert upscaler["is"].startswith("2x upscaler (")
    assert upscaler["architecture"] == "Compact"


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.safetensors"
    page.write_bytes(b"<!DOCTYPE html>" + b" " * 100)
    for path, words in (
        (page, "a web page; the download has failed"),
        (tmp_path, "is a folder"),
        (tmp_path / "x", "no such file"),
    ):
        assert main([str(path)]) == 2
        assert words in capsys.readouterr().err


def test_neither_help_nor_a_look_at_a_safetensors_file_loads_pytorch(lora: Path) -> None:
    names = ("merge_lora", "extract_lora", "resize_lora", "convert_lora", "show_metadata")
    code = (
        "import contextlib, importlib, sys\n"
        f"for name in {names}:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        importlib.import_module('tools.' + name).main(['--help'])\n"
        f"importlib.import_module('tools.show_metadata').main([{str(lora)!r}])\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert all(f"usage: {name}" in run.stdout for name in names)
