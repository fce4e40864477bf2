"""What fits is taken over from a file, moved layers are found again, and what does not fit is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lora_trainer.errors import Refusal
from lora_trainer.models.sr_file import save_network
from lora_trainer.models.sr_networks import SrNetwork, build_network
from lora_trainer.models.sr_pretrain import PretrainReport, load_pretrain, read_weights

Tiny = Callable[..., SrNetwork]
State = dict[str, torch.Tensor]


def saved(network: SrNetwork, path: Path) -> Path:
    save_network(path, network, network.module.state_dict())
    return path


def taken_over(old: SrNetwork, new: SrNetwork, folder: Path, **options: Any) -> PretrainReport:
    return load_pretrain(new.module, saved(old, folder / "old ü.safetensors"), **{"strict": False, **options})


# share: of the keys, as measured on the real sizes of these networks in traiNNer-redux, but for the moved layers
@pytest.mark.parametrize(
    ("name", "options", "share", "left"),
    [
        ("span", {}, 99.0, {"upsampler.0.weight", "upsampler.0.bias"}),
        ("realplksr", {}, 99.4, {"feats.30.weight", "feats.30.bias"}),
        ("esrgan", {"num_blocks": 2}, 98.6, {"model.0.weight"}),
        ("dat_2", {}, 99.9, {"upsample.2.weight", "upsample.2.bias"}),
    ],
)
def test_from_2x_to_4x(tmp_path: Path, name: str, options: dict[str, Any], share: float, left: set[str]) -> None:
    old, new = build_network(name, 2, options), build_network(name, 4, options)
    before = {key: value.clone() for key, value in new.module.state_dict().items()}
    report = taken_over(old, new, tmp_path)
    assert round(100 * report.share, 1) == share
    after, source = new.module.state_dict(), old.module.state_dict()
    assert {entry.split(" ")[0] for entry in report.mismatched} | {*report.missing} == left
    assert all(torch.equal(after[key], before[key]) for key in left)
    kept = [key for key, _ in new.module.named_parameters() if key not in left and not new.is_unused(key)]
    assert all(torch.equal(after[key], source[key]) for key in kept)
    assert report.lines[0] == f"old ü.safetensors: {len(report.taken)} of {len(after)} tensors ({share} %) taken over"


def test_layers_whose_number_moved_are_found_again(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    old = tiny_upscaler("esrgan", 2, use_pixel_unshuffle=False)
    new = tiny_upscaler("esrgan", 4)
    report = taken_over(old, new, tmp_path)
    source, after = old.module.state_dict(), new.module.state_dict()
    for there, here in (("model.3", "model.3"), ("model.5", "model.8"), ("model.7", "model.10")):
        assert torch.equal(after[f"{here}.weight"], source[f"{there}.weight"])
        assert torch.equal(after[f"{here}.bias"], source[f"{there}.bias"])
    assert report.remapped[0] == ("model.5.weight", "model.8.weight")
    assert report.missing == ("model.6.weight", "model.6.bias")
    assert (report.unexpected, report.mismatched) == ((), ())
    assert report.lines[1:] == (
        "moved: model.5 -> model.8, model.7 -> model.10",
        "not in the file, left as they start: model.6.weight, model.6.bias",
    )


def test_and_the_other_way(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    new = tiny_upscaler("esrgan", 2, use_pixel_unshuffle=False)
    report = taken_over(tiny_upscaler("esrgan", 4), new, tmp_path)
    assert report.share == 1.0
    assert {*report.unexpected} == {"model.6.weight", "model.6.bias"}
    assert [old for old, new in report.remapped if new.endswith("weight")] == ["model.8.weight", "model.10.weight"]


def test_a_deeper_network_keeps_its_last_layer(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    old, new = tiny_upscaler("realplksr", 2, n_blocks=1), tiny_upscaler("realplksr", 2, n_blocks=3)
    report = taken_over(old, new, tmp_path)
    assert report.remapped == (("feats.3.weight", "feats.5.weight"), ("feats.3.bias", "feats.5.bias"))
    assert torch.equal(new.module.state_dict()["feats.5.weight"], old.module.state_dict()["feats.3.weight"])


def test_the_buffer_that_holds_the_scale_is_not_taken_over(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    old = tiny_upscaler("fdat_tiny", 2, upsampler_type="pixelshuffledirect")
    new = tiny_upscaler("fdat_tiny", 4, upsampler_type="pixelshuffledirect")
    (meta,) = [name for name in new.module.state_dict() if name.endswith("MetaUpsample")]
    expected = new.module.state_dict()[meta].clone()
    assert not torch.equal(expected, old.module.state_dict()[meta])
    taken_over(old, new, tmp_path)
    assert torch.equal(new.module.state_dict()[meta], expected)


def test_the_state_of_batch_and_spectral_norm_is_taken_over(tmp_path: Path) -> None:
    def make() -> nn.Module:
        normed = nn.utils.spectral_norm(nn.Conv2d(3, 4, 3))
        return nn.Sequential(normed, nn.BatchNorm2d(4), nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)))

    old, new = make(), make()
    old.train()[:2](torch.rand(2, 3, 8, 8))
    save_file(old.state_dict(), tmp_path / "d.safetensors")
    assert load_pretrain(new, tmp_path / "d.safetensors", strict=True).share == 1.0
    assert all(torch.equal(value, old.state_dict()[name]) for name, value in new.state_dict().items())


def test_strict_names_what_differs(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    path = saved(tiny_upscaler("compact", 2), tmp_path / "two.safetensors")
    new = tiny_upscaler("compact", 4)
    before = {name: value.clone() for name, value in new.module.state_dict().items()}
    with pytest.raises(Refusal) as refused:
        load_pretrain(new.module, path, strict=True)
    assert str(refused.value).startswith(
        f"{path}: the file does not fit the network exactly: it has other shapes in body.6.weight "
        "((12, 8, 3, 3) in the file, (48, 8, 3, 3) here), body.6.bias ((12,) in the file, (48,) here). Set the "
    )
    assert all(torch.equal(value, before[name]) for name, value in new.module.state_dict().items())
    with pytest.raises(Refusal, match=r"it lacks no_norm\. Set"):
        load_pretrain(tiny_upscaler("span", 2).module, saved(tiny_upscaler("span", 2, norm=True), path), strict=True)


def test_strict_takes_what_fits_exactly(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    old = tiny_upscaler("dat", 2)
    new = build_network("dat", 2, {"embed_dim": 16, "depth": [2], "num_heads": [2], "split_size": [4, 8]})
    report = load_pretrain(new.module, saved(old, tmp_path / "net.pth"), strict=True)
    assert (report.share, report.lines) == (1.0, (report.lines[0],))
    assert all(torch.equal(value, old.module.state_dict()[name]) for name, value in new.module.state_dict().items())


def test_nothing_in_common_is_refused_also_when_not_strict(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    path = saved(tiny_upscaler("compact", 2), tmp_path / "other.safetensors")
    with pytest.raises(Refusal, match=r"nothing in this file fits the network: it has body\.0\.weight, .* and 8 more,"):
        load_pretrain(tiny_upscaler("span", 2).module, path, strict=False)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"params": state},
        lambda state: {"params": {name: 0 * value for name, value in state.items()}, "params_ema": state},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3},
        lambda state: {"anything": state},
    ],
    ids=["bare", "params", "params_ema first", "state_dict and module.", "the only table"],
)
def test_the_tables_of_pth_files(tiny_upscaler: Tiny, tmp_path: Path, wrap: Callable[[State], Any]) -> None:
    state = tiny_upscaler("compact", 2).module.state_dict()
    torch.save(wrap(dict(state)), tmp_path / "net.pth")
    found = read_weights(tmp_path / "net.pth")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_a_named_table(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    state = tiny_upscaler("compact", 2).module.state_dict()
    zeros = {name: 0 * value for name, value in state.items()}
    torch.save({"params": zeros, "params_ema": dict(state)}, tmp_path / "net.pth")
    assert not any(value.any() for value in read_weights(tmp_path / "net.pth", "params").values())
    with pytest.raises(Refusal, match="the file has no table ema; there is params, params_ema"):
        read_weights(tmp_path / "net.pth", "ema")


def test_the_newer_names_of_esrgan_are_understood(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    """As basicsr names its RRDBNet; the network here is the same with the older names."""
    network = tiny_upscaler("esrgan", 4)
    state = network.module.state_dict()
    names = {"model.0": "conv_first", "model.1.sub.1": "conv_body", "model.3": "conv_up1", "model.6": "conv_up2"}
    names |= {"model.8": "conv_hr", "model.10": "conv_last"}
    for unit in (1, 2, 3):
        for conv in range(1, 6):
            names[f"model.1.sub.0.RDB{unit}.conv{conv}.0"] = f"body.0.rdb{unit}.conv{conv}"
    newer = {f"{names[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value for name, value in state.items()}
    assert len(newer) == len(state)
    torch.save({"params_ema": newer}, tmp_path / "RealESRGAN.pth")
    new = build_network("esrgan", 4, {"num_filters": 8, "num_blocks": 1})
    assert load_pretrain(new.module, tmp_path / "RealESRGAN.pth", strict=True).share == 1.0
    assert all(torch.equal(value, state[name]) for name, value in new.module.state_dict().items())


def test_half_precision_files_fill_float_networks(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    old, new = tiny_upscaler("compact", 2), tiny_upscaler("compact", 2)
    save_network(tmp_path / "half.safetensors", old, old.module.state_dict(), torch.float16)
    load_pretrain(new.module, tmp_path / "half.safetensors", strict=True)
    for name, weight in new.module.named_parameters():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, old.module.get_parameter(name).half().float())


def test_files_that_are_no_networks_are_refused_in_words(tiny_upscaler: Tiny, tmp_path: Path) -> None:
    state = dict(tiny_upscaler("compact", 2).module.state_dict())
    good = tmp_path / "good.pth"
    torch.save(state, good)
    (tmp_path / "cut.pth").write_bytes(good.read_bytes()[:3000])
    (tmp_path / "photo.pth").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    (tmp_path / "empty.safetensors").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"net": Path("code")}, tmp_path / "objects.pth")
    save_file({}, tmp_path / "nothing.safetensors")
    save_file({"weight": torch.tensor([float("nan")])}, tmp_path / "nan.safetensors")
    for name, text in (
        ("absent.pth", "there is no such file"),
        ("cut.pth", "a ZIP archive that is incomplete"),
        ("photo.pth", "this is a PNG picture"),
        ("empty.safetensors", "empty.safetensors"),
        ("list.pth", "the file holds a list, not named tensors"),
        ("objects.pth", "Python objects besides tensors"),
        ("nothing.safetensors", "the file holds no weights"),
    ):
        with pytest.raises(Refusal, match=text):
            read_weights(tmp_path / name)
    with pytest.raises(Refusal, match="weight holds NaN or infinite numbers"):
        load_pretrain(nn.PReLU(), tmp_path / "nan.safetensors", strict=True)
