"""Weights of others: where they come from, and what is said when they do not come."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lora_trainer.errors import Refusal
from lora_trainer.losses.pretrained import Published, fill, read_weights

ABSENT = Published("NET", "http://127.0.0.1:9/net-0a1b2c3d.pth")  # the port where nobody listens


def state() -> dict[str, torch.Tensor]:
    return {"features.0.weight": torch.full((2, 1, 3, 3), 3.0), "features.0.bias": torch.tensor([1.0, 2.0])}


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize("prefix", ["features.", ""])
def test_a_local_file(tmp_path: Path, name: str, prefix: str) -> None:
    tensors = {key.replace("features.", prefix): value for key, value in state().items()}
    path = tmp_path / name
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    fill(network, read_weights(ABSENT, path), ABSENT)
    assert network[0].bias.tolist() == [1, 2]
    assert network[0].weight.unique().tolist() == [3]


def test_a_download_is_kept_where_torchvision_keeps_it(tmp_path: Path, hub: Path) -> None:
    torch.save(state(), tmp_path / "net.pth")
    published = Published("NET", (tmp_path / "net.pth").as_uri())
    assert read_weights(published, None)["features.0.bias"].tolist() == [1, 2]
    (tmp_path / "net.pth").unlink()
    assert (hub / "net.pth").is_file()
    assert read_weights(published, None)["features.0.bias"].tolist() == [1, 2]


def test_a_download_that_fails_says_how_to_go_on(hub: Path) -> None:
    with pytest.raises(Refusal) as caught:
        read_weights(ABSENT, None)
    (problem,) = caught.value.problems
    assert problem.startswith(f"the weights of NET could not be downloaded from {ABSENT.url} (")
    assert problem.endswith(
        'get net-0a1b2c3d.pth by other means and say where it is with the option "weights", or lay it at '
        f"{hub / 'net-0a1b2c3d.pth'}"
    )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as caught:
        read_weights(ABSENT, tmp_path / "gone.pth")
    assert caught.value.problems == (
        f"weights: there is no file {tmp_path / 'gone.pth'} with the weights of NET; "
        f"get net-0a1b2c3d.pth from {ABSENT.url}",
    )


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_a_file_that_is_no_weights(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>404</html>")
    with pytest.raises(Refusal, match=r"broken\.\w+ cannot be read as tensors \(\w+\); get net-0a1b2c3d\.pth from"):
        read_weights(ABSENT, tmp_path / name)


def test_weights_of_another_network() -> None:
    with pytest.raises(Refusal) as caught:
        fill(nn.Sequential(nn.Conv2d(1, 4, 3)), state(), ABSENT)
    assert caught.value.problems[0] == (
        "weights: the file is not of NET, it has the shape (2, 1, 3, 3) for features.0.weight, which has (4, 1, 3, 3); "
        f"get net-0a1b2c3d.pth from {ABSENT.url}"
    )
    with pytest.raises(Refusal, match=r"it has nothing for features\.1\.weight, which has \(2, 2, 1, 1\)"):
        fill(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1)), state(), ABSENT)
    with pytest.raises(Refusal, match="it has a list instead of named tensors"):
        fill(nn.Sequential(nn.Conv2d(1, 2, 3)), [1], ABSENT)
