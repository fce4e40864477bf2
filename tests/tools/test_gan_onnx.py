"""`tools.export_onnx` on GANs' snapshots: onnxruntime makes the images of the network, of any number of latents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from lora_trainer.models.gan.generation import read_generator, seed_latents
from lora_trainer.models.gan.snapshot import save_snapshot
from lora_trainer.models.gan.table import GanSize, build_generator, build_r3gan
from tools import export_onnx, gan_onnx

Snapshot = Callable[..., Path]


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    def write(cfg: str, c_dim: int = 0) -> Path:
        size = GanSize(32, 3, c_dim, 128, 8)
        facts = {"resolution": 32, "img_channels": 3, "c_dim": c_dim, "cbase": 128, "cmax": 8}
        if cfg == "r3gan":
            state = build_r3gan(size, seed=1)[0].state_dict()
        else:
            network = build_generator(cfg, size, seed=1, dims=(6, 7), map_depth=2)
            with torch.no_grad():
                network.mapping.w_avg.normal_(generator=torch.Generator().manual_seed(2))
            state, facts = network.state_dict(), {**facts, "z_dim": 6, "w_dim": 7, "map_depth": 2}
        path = tmp_path / f"schnappschuss ü {cfg}.safetensors"
        save_snapshot(path, cfg, {"G_ema": state}, facts)
        return path

    return write


def run(path: Path, **inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == list(inputs)
    found: np.ndarray = session.run(None, inputs)[0]
    return found


@pytest.mark.parametrize("cfg", ["stylegan2", "stylegan3-t", "stylegan3-r", "creps"])
def test_onnx_makes_the_generators_images(
    cfg: str, snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = snapshot(cfg), tmp_path / "neu ö" / "out.onnx"
    assert export_onnx.main([str(source), str(target)]) == 0
    told = capsys.readouterr().out
    assert f"{target}: {cfg} of 32 px, any number of images, from z, truncation_psi; largest difference" in told
    z = seed_latents(range(5), 6)  # a number that the tool has not tried
    network = read_generator(source).network
    options = {"noise": "const"} if cfg == "stylegan2" else {}
    with torch.no_grad():
        wanted = network(z, truncation_psi=0.3, **options).numpy()
    found = run(target, z=z.numpy(), truncation_psi=np.array(0.3, np.float32))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-3
    content = onnx.load(str(target))
    assert {entry.key: entry.value for entry in content.metadata_props}["type"] == cfg
    assert content.opset_import[0].version == 18


def test_classes_are_an_input(snapshot: Snapshot) -> None:
    source = snapshot("stylegan2", c_dim=3)
    assert export_onnx.main([str(source)]) == 0
    z, labels = seed_latents(range(4), 6), torch.eye(3)[[0, 2, 1, 1]]
    with torch.no_grad():
        wanted = read_generator(source).network(z, labels, noise="const").numpy()
    psi = np.array(1, np.float32)
    found = run(source.with_suffix(".onnx"), z=z.numpy(), truncation_psi=psi, label=labels.numpy())
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_r3gan_has_no_truncation(snapshot: Snapshot) -> None:
    source = snapshot("r3gan")
    assert export_onnx.main([str(source)]) == 0
    z = seed_latents(range(4), 64)
    with torch.no_grad():
        wanted = read_generator(source).network(z).numpy()
    np.testing.assert_allclose(run(source.with_suffix(".onnx"), z=z.numpy()), wanted, rtol=1e-4, atol=1e-5)


def test_exports_one_after_another_do_not_share_a_trace(snapshot: Snapshot) -> None:
    for _ in range(2):
        assert export_onnx.main([str(snapshot("stylegan3-r"))]) == 0


def test_what_a_generator_is_not_written_as(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = snapshot("stylegan2")
    assert export_onnx.main([str(source), "--fp16"]) == 2
    assert export_onnx.main([str(source), "--size", "64"]) == 2
    told = f"{source}: a generator is written in fp32 and its own size; leave out --fp16 and --size\n"
    assert capsys.readouterr().err == told * 2
    assert not source.with_suffix(".onnx").exists()
    monkeypatch.setattr(gan_onnx, "TOLERANCE", -1.0)
    assert export_onnx.main([str(source)]) == 1
    assert "this file makes other images than the snapshot" in capsys.readouterr().err
