"""`tools.export_onnx` on tiny models: the file makes the network's pictures at any size, or says that it does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from lora_trainer.models.sr_file import network_from_file
from tools import export_onnx

REPOSITORY = Path(__file__).parents[2]
Model = Callable[..., Path]
TINY = [
    ("compact", {"num_feat": 8, "num_conv": 2}),
    ("span", {"feature_channels": 8}),
    ("esrgan", {"num_filters": 8, "num_blocks": 1}),
    ("realplksr", {"dim": 16, "n_blocks": 2}),
]
HAT = {"embed_dim": 12, "depths": [2], "num_heads": [2], "compress_ratio": 3, "squeeze_factor": 6}


def pictures_of(path: Path, picture: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"input": picture.numpy()})[0]
    return found


@pytest.mark.parametrize(("name", "options"), TINY)
def test_onnx_makes_the_models_pictures(
    model: Model, tmp_path: Path, name: str, options: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = model(name, 2, **options), tmp_path / "neu ö" / "out.onnx"
    assert export_onnx.main([str(source), str(target)]) == 0
    assert "2x, any size, fp32; largest difference" in capsys.readouterr().out
    picture = torch.rand(2, 3, 34, 50)  # a size and a number of pictures that the tool has not tried
    with torch.inference_mode():
        wanted = network_from_file(source).model(picture).numpy()
    np.testing.assert_allclose(pictures_of(target, picture), wanted, rtol=0, atol=1e-5)
    content = onnx.load(str(target))
    multiple = "4" if name == "esrgan" else "1"  # with a scale of 2 it unshuffles
    metadata = {entry.key: entry.value for entry in content.metadata_props}
    assert (metadata["scale"], metadata["type"], metadata["size_multiple"]) == ("2", name, multiple)
    assert "hyperparameters" in metadata
    assert content.opset_import[0].version == 18


def test_half_precision(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    source = model("compact", 2, num_feat=8, num_conv=2)
    assert export_onnx.main([str(source), "--fp16"]) == 0
    content = onnx.load(str(source.with_suffix(".onnx")))
    assert {tensor.data_type for tensor in content.graph.initializer if tensor.dims} == {onnx.TensorProto.FLOAT16}
    swinir = model("swinir_s", 2, embed_dim=12, depths=[2], num_heads=[2])
    assert export_onnx.main([str(swinir), "--fp16"]) == 2
    assert "SwinIR overflows in half precision; leave out --fp16" in capsys.readouterr().err


def test_a_network_that_onnx_holds_to_one_size(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    source = model("hat_s", 2, **HAT)
    target = source.with_suffix(".onnx")
    assert export_onnx.main([str(source)]) == 2
    captured = capsys.readouterr().err
    assert captured.startswith("nothing is written, as onnxruntime fails at 72 x 40 pixels (")
    assert captured.rstrip().endswith("this network may do with a file for one size: --size 256")
    assert not target.exists()
    assert export_onnx.main([str(source), "--size", "32"]) == 0
    assert "HAT 2x, 32 x 32 pixels, fp32" in capsys.readouterr().out
    assert pictures_of(target, torch.rand(1, 3, 32, 32)).shape == (1, 3, 64, 64)


def test_sizes_are_those_that_the_network_takes(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = model("esrgan", 1, num_filters=8, num_blocks=1)  # it unshuffles four pixels
    assert export_onnx.main([str(source), "--size", "30"]) == 2
    assert capsys.readouterr().err == "--size 30: ESRGAN takes at least 4 and multiples of 4\n"
    assert export_onnx.main([str(source)]) == 0


def test_an_onnx_file_that_differs_is_told(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(export_onnx.TOLERANCE, "fp32", -1.0)
    assert export_onnx.main([str(model("compact", 2, num_feat=8, num_conv=2)), str(tmp_path / "out.onnx")]) == 1
    assert "this file makes other pictures than the model" in capsys.readouterr().err


def test_without_the_extra_its_name_is_told(
    model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_onnx, "PACKAGES", ("onnx", "no_such_package"))
    assert export_onnx.main([str(model("compact", 2, num_feat=8, num_conv=2))]) == 2
    assert capsys.readouterr().err == "no_such_package not installed: pip install lora_trainer[onnx]\n"


def test_from_the_command_line(model: Model) -> None:
    source = model("compact", 2, num_feat=8, num_conv=2)
    call = [sys.executable, "-m", "tools.export_onnx", str(source)]
    done = subprocess.run(call, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert source.with_suffix(".onnx").is_file()
