"""`tools.upscale` and `tools.export_onnx` on tiny models."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lora_trainer.models.sr_file import network_from_file, save_network
from lora_trainer.models.sr_networks import build_network
from tools import export_onnx, upscale

REPOSITORY = Path(__file__).parents[2]
Model = Callable[..., Path]


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """`model("compact", 2, num_feat=8)` writes a file of random weights."""

    def write(name: str, scale: int, **options: object) -> Path:
        torch.manual_seed(0)
        network = build_network(name, scale, options)
        path = tmp_path / f"modell ü {name}.safetensors"
        save_network(path, network, network.module.state_dict())
        return path

    return write


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "bilder ä"
    (folder / "more").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (21, 30, 4), np.uint8)
    Image.fromarray(noise[..., :3]).save(folder / "plain.png")
    Image.fromarray(noise).save(folder / "more" / "clear.png")
    Image.fromarray(noise[..., 0]).save(folder / "grey.webp", lossless=True)
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    return folder


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_a_folder_is_upscaled_as_the_model_does_it(
    model: Model, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = model("compact", 2, num_feat=8, num_conv=2), tmp_path / "out"
    arguments = ["--model", str(path), "--input", str(pictures), "--output", str(out), "--suffix", "_x2"]
    assert upscale.main([*arguments, "--fp16"]) == 0
    said = capsys.readouterr().out
    assert "--fp16: a CPU has no use for it; float32 is used" in said
    assert "deep.png: 16 bits a channel are made 8" in said
    assert sorted(file.relative_to(out).as_posix() for file in out.rglob("*.png")) == [
        "deep_x2.png", "grey_x2.png", "more/clear_x2.png", "plain_x2.png",
    ]  # fmt: skip
    image = torch.from_numpy(pixels(pictures / "plain.png")).permute(2, 0, 1)[None].float() / 255
    wanted = (network_from_file(path)(image)[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(pixels(out / "plain_x2.png") - wanted).max() <= 1
    assert pixels(out / "more" / "clear_x2.png").shape == (42, 60, 4)
    assert np.array_equal(pixels(out / "deep_x2.png"), pixels(out / "grey_x2.png"))
    assert upscale.main(arguments) == 0
    assert "there already; --overwrite does it again" in capsys.readouterr().out


def test_tiles_make_the_same_picture(model: Model, pictures: Path, tmp_path: Path) -> None:
    path, plain = model("compact", 2, num_feat=8, num_conv=2), pictures / "plain.png"
    for out, more in (("a", []), ("b", ["--tile", "12", "--overlap", "8"])):
        arguments = ["--model", str(path), "--input", str(plain), "--output", str(tmp_path / out)]
        assert upscale.main([*arguments, *more]) == 0
    assert np.array_equal(pixels(tmp_path / "a" / "plain.png"), pixels(tmp_path / "b" / "plain.png"))


def test_a_damaged_picture_is_named_and_the_others_are_done(
    model: Model, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "broken.png").write_bytes((pictures / "plain.png").read_bytes()[:200])
    path = model("compact", 2, num_feat=8, num_conv=2)
    assert upscale.main(["--model", str(path), "--input", str(pictures), "--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "broken.png: " in captured.err
    assert "4 pictures in" in captured.out and "1 failed" in captured.out


@pytest.mark.parametrize(
    ("change", "text"),
    [({"--input": "nowhere"}, "nowhere: there is no such picture or folder"), ({"--model": "x.pth"}, "x.pth")],
)
def test_wrong_paths_are_refused(
    model: Model, pictures: Path, tmp_path: Path, change: dict[str, str], text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = model("compact", 2, num_feat=8, num_conv=2)
    arguments = {"--model": str(path), "--input": str(pictures), "--output": str(tmp_path / "out"), **change}
    assert upscale.main([word for pair in arguments.items() for word in pair]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("tool", ["upscale", "export_onnx", "extract_subimages", "make_lmdb", "convert_preset"])
def test_help_needs_no_torch(tool: str) -> None:
    call = f"import sys, tools.{tool} as t\ntry: t.main(['--help'])\nexcept SystemExit: pass"
    code = f"{call}\nsys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("compact", {"num_feat": 8, "num_conv": 2}),
        ("span", {"feature_channels": 8}),
        ("realplksr", {"dim": 16, "n_blocks": 2}),
    ],
)
def test_onnx_makes_the_models_pictures(
    model: Model, tmp_path: Path, name: str, options: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    target = tmp_path / "out.onnx"
    assert export_onnx.main([str(model(name, 2, **options)), str(target)]) == 0
    assert "largest difference" in capsys.readouterr().out
    metadata = {entry.key: entry.value for entry in onnx.load(str(target)).metadata_props}
    assert metadata["scale"] == "2"
    assert metadata["type"] == name


def test_an_onnx_file_that_differs_is_told(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(export_onnx.TOLERANCE, "fp32", 0.0)
    monkeypatch.setattr(export_onnx, "_difference", lambda *rest: 0.5)
    assert export_onnx.main([str(model("compact", 2, num_feat=8, num_conv=2)), str(tmp_path / "out.onnx")]) == 1
    assert "this file makes other pictures than the model" in capsys.readouterr().err
