"""Snapshots in the official layout, made here: read without running what they carry, refused when they ask for more."""

from __future__ import annotations

import collections
import io
import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lora_trainer.errors import Refusal
from lora_trainer.models.gan.official_pickle import read_official_pickle
from lora_trainer.models.gan.snapshot import read_snapshot, save_snapshot
from lora_trainer.models.gan.table import GanSize, build_discriminator, build_generator
from lora_trainer.models.gan.transfer import transfer

SIZE = GanSize(32, cbase=64, cmax=8, c_dim=2)
TRAP = "raise SystemExit('the source in the file was run')"


class EasyDict(dict):  # type: ignore[type-arg]
    pass


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("only a name in the pickle")


class _Persistent:
    """Pickled as the official classes are: a call with a dictionary that holds source and state."""

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.meta = EasyDict(type="class", version=6, module_src=TRAP, class_name=class_name, state=state)

    def __reduce__(self) -> Any:
        return _reconstruct_persistent_obj, (self.meta,), None


class SynthesisInput(nn.Module):
    """CREPS' only part without source."""


@pytest.fixture(autouse=True)
def official_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So that pickle writes the official names."""
    for name, contents in {
        "torch_utils.persistence": [_reconstruct_persistent_obj],
        "dnnlib.util": [EasyDict],
        "training.networks_creps": [SynthesisInput],
    }.items():
        module = types.ModuleType(name)
        for each in contents:
            setattr(module, each.__name__, each)
            monkeypatch.setattr(each, "__module__", name)
        monkeypatch.setitem(sys.modules, name.split(".")[0], types.ModuleType(name.split(".")[0]))
        monkeypatch.setitem(sys.modules, name, module)
    yield


def official(network: nn.Module, class_name: str, **options: Any) -> _Persistent:
    """A module tree as the official code pickles it, with the extras that its states have."""
    parts = collections.OrderedDict((name, _part(part, name)) for name, part in network.named_children())
    state = {
        "training": False,
        "_parameters": collections.OrderedDict(network._parameters),
        "_buffers": collections.OrderedDict(network._buffers),
        "_non_persistent_buffers_set": set(),
        "_modules": parts,
        "_init_args": (),
        "_init_kwargs": EasyDict(options),
        "bandwidth": np.float64(2.5),
        "sizes": np.array([36, 52]),
        "order": np.asfortranarray(np.ones([2, 3], np.float32)),
    }
    return _Persistent(class_name, state)


def _part(part: nn.Module, name: str) -> Any:
    if name == "input" and hasattr(part, "coords"):
        bare = SynthesisInput()
        bare.__dict__.update(_modules={n: _part(p, n) for n, p in part.named_children()})
        bare.__dict__.update(_parameters=dict(part._parameters), _buffers=dict(part._buffers))
        return bare
    if name.startswith("decoder_") and isinstance(part, nn.Sequential):
        return nn.Sequential(collections.OrderedDict((n, _Module(_part(p, n))) for n, p in part.named_children()))
    return official(part, type(part).__name__)


class _Module(nn.Module):
    """Stands in a Sequential for what is pickled as a persistent object."""

    def __init__(self, inner: _Persistent) -> None:
        super().__init__()
        self.__dict__["inner"] = inner

    def __reduce__(self) -> Any:
        return self.__dict__["inner"].__reduce__()


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("cfg", ["stylegan2", "stylegan3-r", "creps"])
def test_a_snapshot_gives_its_tensors_and_options(cfg: str, protocol: int, tmp_path: Path) -> None:
    generator, critic = build_generator(cfg, SIZE, seed=1, dims=(6, 7), map_depth=3), build_discriminator(SIZE, seed=1)
    width = 2 if cfg == "stylegan3-r" else 1
    words = {"z_dim": 6, "w_dim": 7, "c_dim": 2, "img_resolution": 32, "img_channels": 3}
    words |= {"channel_base": 64 * width, "channel_max": 8 * width}
    content = {
        "training_set_kwargs": EasyDict(class_name="training.dataset.ImageFolderDataset", resolution=32),
        "G": official(generator, "Generator", **words),
        "D": official(critic, "Discriminator"),
        "G_ema": official(generator, "Generator", **words),
        "augment_pipe": None,
    }
    path = write(tmp_path / "network-snapshot-000200.pkl", content, protocol)
    read = read_official_pickle(path)
    assert read.networks["G"].class_name == "Generator"
    assert read.dataset["resolution"] == 32
    for name, network in {"G": generator, "D": critic, "G_ema": generator}.items():
        tensors = read.networks[name].tensors
        assert tensors.keys() == network.state_dict().keys()
        assert all(torch.equal(tensors[key], value) for key, value in network.state_dict().items())
    snapshot = read_snapshot(path)
    assert (snapshot.cfg, snapshot.size) == (cfg, SIZE)
    assert (snapshot.options["z_dim"], snapshot.options["w_dim"], snapshot.options["map_depth"]) == (6, 7, 3)
    other = build_generator(snapshot.cfg, snapshot.size, seed=2, dims=(6, 7), map_depth=3)
    report = transfer(other, snapshot.networks["G_ema"], "snapshot")
    assert not report.missing + report.mismatched + report.left
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), generator.parameters(), strict=True))


def test_any_other_name_is_refused_by_name(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return __import__("os").system, ("echo run > " + str(tmp_path / "run"),)

    path = write(tmp_path / "trap.pkl", {"G": Trap()})
    with pytest.raises(Refusal, match=r"trap\.pkl: the file asks for (posix|nt)\.system, which no network needs"):
        read_official_pickle(path)
    assert not (tmp_path / "run").exists()
    builtin = tmp_path / "builtin.pkl"
    builtin.write_bytes(b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.")
    with pytest.raises(Refusal, match=r"asks for builtins\.eval"):
        read_official_pickle(builtin)
    tensorflow = tmp_path / "old.pkl"
    tensorflow.write_bytes(b"\x80\x02cdnnlib.tflib.network\nNetwork\n.")
    with pytest.raises(Refusal, match=r"TensorFlow version; convert it with stylegan3's legacy\.py"):
        read_official_pickle(tensorflow)


def test_a_tensors_memory_holds_no_code_either(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return __import__("os").system, ("echo run > " + str(tmp_path / "run"),)

    buffer = io.BytesIO()
    torch.save({"storage": Trap()}, buffer, _use_new_zipfile_serialization=False)

    class Memory:
        def __reduce__(self) -> Any:
            return torch.storage._load_from_bytes, (buffer.getvalue(),)

    with pytest.raises(Refusal, match="not a readable StyleGAN snapshot"):
        read_official_pickle(write(tmp_path / "memory.pkl", {"G": Memory()}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not networks"),
        ({"x": 1}, "there is none of the networks G, D, G_ema in it"),
        ({"G": _Persistent, "o": np.array([object()])}, "asks for"),
    ],
)
def test_what_is_no_snapshot_is_said(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=message):
        read_official_pickle(write(tmp_path / "other.pkl", content))


def test_a_damaged_or_absent_file_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.pkl", {"G": official(nn.Linear(2, 2), "Generator")})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(Refusal, match=r"cut\.pkl: not a readable StyleGAN snapshot"):
        read_official_pickle(path)
    with pytest.raises(Refusal, match=r"none\.pkl: there is no such snapshot"):
        read_snapshot(tmp_path / "none.pkl")
    with pytest.raises(Refusal, match="its generator is none of stylegan2, stylegan3-t, stylegan3-r, creps"):
        read_snapshot(write(tmp_path / "linear.pkl", {"G": official(nn.Linear(2, 2), "Generator")}))


def test_our_own_snapshots_come_back(tmp_path: Path) -> None:
    generator = build_generator("stylegan3-t", SIZE, seed=1, dims=(6, 7))
    options = {"resolution": 32, "img_channels": 3, "c_dim": 2, "cbase": 64, "cmax": 8, "z_dim": 6}
    paths = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for path in paths:
        save_snapshot(path, "stylegan3-t", {"G_ema": generator.state_dict()}, options)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    snapshot = read_snapshot(paths[0])
    assert (snapshot.cfg, snapshot.options, snapshot.size) == ("stylegan3-t", options, SIZE)
    state = generator.state_dict()
    assert snapshot.networks["G_ema"].keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in snapshot.networks["G_ema"].items())
    whole = paths[0].read_bytes()
    paths[1].write_bytes(whole.replace(b"lora_trainer gan 1", b"lora_trainer gin 1"))
    with pytest.raises(Refusal, match="no snapshot of a GAN"):
        read_snapshot(paths[1])


def test_what_fits_is_taken_and_the_rest_is_told() -> None:
    small = build_generator("stylegan2", GanSize(32, cbase=256, cmax=8), seed=1, dims=(6, 7))
    large = build_generator("stylegan2", GanSize(64, cbase=256, cmax=8), seed=2, dims=(6, 7))
    report = transfer(large, small.state_dict(), "small.pkl, G")
    assert report.missing
    assert all(name.startswith("synthesis.b64.") for name in report.missing)
    assert torch.equal(large.synthesis.b32.conv0.weight, small.synthesis.b32.conv0.weight)
    assert str(report).startswith(f"{len(report.taken)} tensors taken, {len(report.missing)} missing, 0 of another")
    other = build_generator("stylegan3-t", SIZE, seed=2, dims=(6, 7))
    before = other.mapping.fc1.weight.clone()
    with pytest.raises(Refusal, match=r"small\.pkl, G: too little of it fits the network of this preset: \d+ tensors"):
        transfer(other, small.state_dict(), "small.pkl, G")
    assert torch.equal(other.mapping.fc1.weight, before)
