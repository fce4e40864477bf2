"""Exports carry their own description, are the same for the same weights, and are read back as what they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spandrel
import torch
from safetensors import safe_open

from lora_trainer.errors import Refusal
from lora_trainer.models.sr_file import check_readback, foresee_readback, network_from_file, read_metadata, save_network
from lora_trainer.models.sr_networks import NETWORKS, SrNetwork, build_network
from lora_trainer.models.sr_pretrain import read_weights

Tiny = Callable[..., SrNetwork]

FIRST: dict[str, str] = {}  # the class -> the first of its names
for _name, (_family, _) in NETWORKS.items():
    FIRST.setdefault(_family.network, _name)
KINDS = [(".safetensors", torch.float32), (".safetensors", torch.float16), (".pth", torch.bfloat16)]


def scale_of(name: str) -> int:
    scales = NETWORKS[name][0].scales
    return 2 if 2 in scales else scales[0]


def export(network: SrNetwork, path: Path, dtype: torch.dtype = torch.float32) -> Path:
    save_network(path, network, network.module.state_dict(), dtype)
    return path


def enlarged(network: SrNetwork, picture: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network.module.eval()(picture)


@pytest.mark.parametrize("name", FIRST.values())
def test_every_architecture_is_read_back_exactly(tiny_upscaler: Tiny, tmp_path: Path, name: str) -> None:
    network = tiny_upscaler(name, scale_of(name))
    assert foresee_readback(network) == []
    for suffix, dtype in KINDS:
        path = export(network, tmp_path / f"ä {name}{suffix}", dtype)
        assert check_readback(path, network) == []
        assert {tensor.dtype for key, tensor in read_weights(path).items() if key in network.trained_weights()} == {
            dtype
        }


@pytest.mark.parametrize("name", FIRST.values())
def test_our_own_reader_gives_the_trained_network_back(tiny_upscaler: Tiny, tmp_path: Path, name: str) -> None:
    network = tiny_upscaler(name, scale_of(name))
    read = network_from_file(export(network, tmp_path / "net.safetensors"))
    side = -(-max(48, network.min_size) // network.size_multiple) * network.size_multiple
    picture = torch.rand(1, 3, side, side)
    assert (read.architecture.id, read.scale) == (network.architecture, network.scale)
    torch.testing.assert_close(read(picture), enlarged(network, picture).clamp(0, 1), rtol=0, atol=1e-6)
    odd = read(torch.rand(1, 3, side + 5, side + 1))
    assert odd.shape == (1, 3, network.scale * (side + 5), network.scale * (side + 1))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_the_same_weights_give_the_same_bytes(tiny_upscaler: Tiny, tmp_path: Path, suffix: str) -> None:
    network = tiny_upscaler("dat", 2)
    first = export(network, tmp_path / f"first{suffix}").read_bytes()
    assert export(network, tmp_path / f"second{suffix}").read_bytes() == first
    shuffled = dict(reversed(network.module.to(memory_format=torch.channels_last).state_dict().items()))
    save_network(tmp_path / f"third{suffix}", network, shuffled)
    assert (tmp_path / f"third{suffix}").read_bytes() == first


def test_the_metadata_describes_the_network(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    network = tiny_upscaler("realplksr", 3, upsampler="dysample")
    path = export(network, tmp_path / "net.safetensors")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    values = json.loads(metadata.pop("hyperparameters"))
    assert metadata == {
        "format": "pt", "type": "realplksr", "architecture": "PLKSR", "network": "RealPLKSR", "scale": "3",
    }  # fmt: skip
    assert (values["dim"], values["n_blocks"], values["dysample"], values["upscaling_factor"]) == (16, 1, True, 3)
    assert read_metadata(export(network, tmp_path / "net.pth")) == read_metadata(path)


def test_a_given_state_is_saved_not_the_networks(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    """As an average's is."""
    network = tiny_upscaler("compact", 2)
    average = {name: 0.5 * value for name, value in network.module.state_dict().items()}
    save_network(tmp_path / "ema.safetensors", network, average)
    found = read_weights(tmp_path / "ema.safetensors")
    assert all(torch.equal(found[name], average[name]) for name in average)
    assert check_readback(tmp_path / "ema.safetensors", network) == [
        "body.0.weight in this file is not the network's; save it again"
    ]


def test_the_copies_of_span_are_current_in_the_file(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    network = tiny_upscaler("span", 2)
    stale = network.module.get_parameter("conv_1.eval_conv.weight").clone()
    file = read_weights(export(network, tmp_path / "net.safetensors"))
    assert torch.equal(network.module.get_parameter("conv_1.eval_conv.weight"), stale)
    enlarged(network, torch.rand(1, 3, 16, 16))  # which brings the module's own up to date
    current = network.module.get_parameter("conv_1.eval_conv.weight")
    assert not torch.equal(current, stale)
    torch.testing.assert_close(file["conv_1.eval_conv.weight"], current)


def test_sizes_that_spandrel_only_guesses_come_back_by_the_metadata(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    network = tiny_upscaler("atd", 2, category_size=32)
    path = export(network, tmp_path / "net.safetensors")
    (difference,) = check_readback(path, network)
    assert difference.startswith("spandrel, and so other programs, makes another picture with this (up to ")
    assert "because it takes it to have category_size 256, not 32; the tools of lora_trainer read it" in difference
    assert foresee_readback(network) == [difference]
    picture = torch.rand(1, 3, 40, 40)
    expected = enlarged(network, picture).clamp(0, 1)
    assert torch.equal(network_from_file(path)(picture), expected)
    assert not torch.allclose(spandrel.ModelLoader().load_from_file(path)(picture), expected, atol=1e-5)


def test_sizes_of_grl_are_in_the_file_for_all(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    """Which spandrel would else take for the published ones: the outputs would be 0.5 apart."""
    network = tiny_upscaler("grl_t", 2, window_size=8, stripe_size=[16, 32])
    read = spandrel.ModelLoader().load_from_file(export(network, tmp_path / "net.safetensors"))
    assert (read.model.hyperparameters["window_size"], read.model.hyperparameters["stripe_size"]) == (8, [16, 32])


def test_a_file_of_another_network_is_told_apart(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    path = export(tiny_upscaler("span", 2), tmp_path / "net.safetensors")
    (difference,) = check_readback(path, tiny_upscaler("compact", 2))
    assert difference.endswith("in this file is not the network's; save it again")
    (tmp_path / "bad.safetensors").write_bytes(b"no network")
    (difference,) = check_readback(tmp_path / "bad.safetensors", tiny_upscaler("compact", 2))
    assert difference.startswith("spandrel cannot read this file (")


def test_a_wrong_scale_is_told() -> None:
    """A 3x ESRGAN, which cannot be asked for, is read as 2x."""
    two = build_network("esrgan", 2, {"num_filters": 8, "num_blocks": 1, "use_pixel_unshuffle": False})
    three = SrNetwork(**{**vars(two), "scale": 3, "options": {**two.options, "scale": 3}})
    three = SrNetwork(**{**vars(three), "module": three.twin()})
    assert foresee_readback(three) == [
        "spandrel reads this as ESRGAN 2x in place of ESRGAN 3x, and so will other programs"
    ]


def test_failed_weights_are_told(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    network = tiny_upscaler("compact", 2)
    network.module.get_parameter("body.2.bias").data[0] = float("nan")
    path = export(network, tmp_path / "net.safetensors")
    assert check_readback(path, network) == [
        "body.2.bias holds NaN or infinite numbers; the training has failed before this file"
    ]
    network.module.get_parameter("body.2.bias").data[0] = 1e6
    path = export(network, tmp_path / "net.safetensors", torch.float16)
    assert check_readback(path, network) == ["the network's output is NaN or infinite"]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("net.onnx", None, "a network is saved as .safetensors or .pth; change the ending"),
        ("net.safetensors", {"a": torch.zeros(2)}, "no upscaler that spandrel knows"),
        ("absent.safetensors", None, "there is no such file"),
    ],
)
def test_what_is_no_upscaler_is_refused(
    tiny_upscaler: Tiny, tmp_path: Path, name: str, content: Any, text: str
) -> None:
    from safetensors.torch import save_file

    path = tmp_path / name
    if content is not None:
        save_file(content, path)
    with pytest.raises(Refusal, match=text):
        if path.suffix == ".onnx":
            export(tiny_upscaler("compact", 2), path)
        else:
            network_from_file(path)


def test_notes_that_do_not_fit_the_weights_are_refused(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network = tiny_upscaler("compact", 2)
    metadata = read_metadata(export(network, tmp_path / "net.safetensors"))
    values = json.loads(metadata["hyperparameters"])
    metadata["hyperparameters"] = json.dumps({**values, "num_conv": 9})
    save_file(dict(network.module.state_dict()), tmp_path / "net.safetensors", metadata)
    with pytest.raises(Refusal, match="the notes in this file do not fit its weights"):
        network_from_file(tmp_path / "net.safetensors")


def test_files_of_other_programs_are_read_too(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    network = tiny_upscaler("swinir_s", 4)
    torch.save({"params": dict(network.module.state_dict())}, tmp_path / "other.pth")
    read = network_from_file(tmp_path / "other.pth")
    picture = torch.rand(1, 3, 24, 24)
    assert (read.architecture.id, read.scale, read.model.training) == ("SwinIR", 4, False)
    assert torch.equal(read(picture), enlarged(network, picture).clamp(0, 1))
