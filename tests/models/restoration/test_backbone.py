"""The backbone is read from open_clip's files, named where it is missing, and passes gradients to pictures alone."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.models.restoration.backbone import (
    FILE_NAMES,
    REPOSITORY,
    STAND_IN,
    STAND_IN_SIZES,
    ClipBackbone,
    find_backbone,
    open_backbone,
)
from tests.engine.hub_stand_in import stand_in as serve
from tests.models.restoration.hub_cache import lay

KEY = "clip_path"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where downloads lie."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture(scope="module")
def stand_in() -> ClipBackbone:
    return open_backbone(STAND_IN, KEY)


def open_clip_state(backbone: ClipBackbone) -> dict[str, Tensor]:
    """Named as in a downloaded file, with something of the text encoder."""
    state = {f"visual.{name}": tensor for name, tensor in backbone.encoder.state_dict().items()}
    return {**state, "logit_scale": torch.tensor(1.0), "transformer.resblocks.0.ln_1.weight": torch.ones(4)}


def picture() -> Tensor:
    return torch.linspace(-1, 1, 3 * 64 * 96).reshape(1, 3, 64, 96).sin() * 1.1


def test_it_sees_what_timm_sees_with_the_same_weights(stand_in: ClipBackbone) -> None:
    expected = [  # shape, mean, standard deviation and last number, from timm 1.0.31
        ((1, 8, 16, 24), 0.0315058812, 1.3568859853, -0.4975237548),
        ((1, 16, 8, 12), -0.2984207391, 1.1633524387, 0.1207476854),
        ((1, 32, 4, 6), 0.0786523923, 1.1606582279, -0.6165345907),
        ((1, 32), -0.1469701999, 1.2519527686, 1.2123734951),
    ]
    for seen, (shape, mean, std, last) in zip(stand_in(picture()), expected, strict=True):
        assert tuple(seen.shape) == shape
        found = float(seen.double().mean()), float(seen.double().std()), float(seen.flatten()[-1])
        assert found == pytest.approx((mean, std, last), abs=2e-5)
    assert stand_in.channels == (8, 16, 32, 32)


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_downloaded_file_or_its_folder_loads(tmp_path: Path, stand_in: ClipBackbone, name: str) -> None:
    folder = tmp_path / "Überraschung mit Leerzeichen"
    folder.mkdir()
    state = {key: tensor.contiguous() for key, tensor in open_clip_state(stand_in).items()}
    if name.endswith(".bin"):
        torch.save(state, folder / name)
    else:
        save_file(state, folder / name)
    for place in (folder, folder / name):
        loaded = open_backbone(str(place), KEY)
        for name_of_weight, weight in stand_in.encoder.state_dict().items():
            assert torch.equal(loaded.encoder.state_dict()[name_of_weight], weight)
        torch.testing.assert_close(loaded(picture()), stand_in(picture()))
        assert loaded.channels == stand_in.channels


def test_downloads_are_found_by_their_name_or_none(hub: Path, stand_in: ClipBackbone, tmp_path: Path) -> None:
    torch.save(open_clip_state(stand_in), tmp_path / "state.bin")
    snapshot = lay(hub, REPOSITORY, {"open_clip_pytorch_model.bin": (tmp_path / "state.bin").read_bytes()})
    for place in ("", REPOSITORY):
        assert find_backbone(place, KEY) == snapshot / "open_clip_pytorch_model.bin"
    assert open_backbone("", KEY).channels == stand_in.channels
    other = lay(hub, "laion/CLIP-convnext_base_w", {"open_clip_model.safetensors": b"1", FILE_NAMES[-1]: b"2"})
    assert find_backbone("laion/CLIP-convnext_base_w", KEY) == other / "open_clip_model.safetensors"


@pytest.mark.parametrize("place", ["", "laion/CLIP-convnext_base_w"])
def test_one_file_is_downloaded_once(hub: Path, place: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lora_trainer")
    repository = place or REPOSITORY
    with serve(hub) as server:
        server.repositories[repository] = {"README.md": b"", FILE_NAMES[0]: b"weights", FILE_NAMES[-1]: b"the same"}
        found = find_backbone(place, KEY)
        assert found is not None
        assert (found.name, found.read_bytes()) == (FILE_NAMES[0], b"weights")
        assert [path.name for path in found.parent.iterdir()] == [FILE_NAMES[0]]
    assert find_backbone(place, KEY) == found
    assert [record.getMessage() for record in caplog.records if record.name.startswith("lora_trainer")] == [
        f"downloading {FILE_NAMES[0]} of {repository} from the hub (0.00 GiB) to {hub}"
    ]


def test_what_the_hub_does_not_have_is_refused(hub: Path) -> None:
    with serve(hub) as server:
        server.repositories["someone/vit"] = {"model.safetensors": b""}
        with pytest.raises(Refusal) as refusal:
            find_backbone("someone/vit", KEY)
        assert str(refusal.value).startswith(
            "clip_path: there is no file or folder someone/vit here, none is among the hub's downloads, and the hub "
            "does not give someone/vit (it holds none of open_clip_model.safetensors, "
        )
        with pytest.raises(Refusal, match=r"does not give laion/.* \(the hub has no such repository, or does not show"):
            find_backbone("", KEY)


def test_half_precision_is_that_of_the_encoder(stand_in: ClipBackbone) -> None:
    half = open_backbone(STAND_IN, KEY, torch.bfloat16)
    seen = half(picture())
    assert {each.dtype for each in seen} == {torch.bfloat16}
    assert half.mean.dtype == torch.float32
    torch.testing.assert_close(seen[0].float(), stand_in(picture())[0], rtol=0.05, atol=0.1)


def test_gradients_reach_the_pictures_and_no_weight(stand_in: ClipBackbone) -> None:
    image = picture().requires_grad_()
    sum(seen.square().mean() for seen in stand_in(image)).backward()  # type: ignore[union-attr]
    assert image.grad is not None
    assert float(image.grad.abs().sum()) > 0
    assert not [name for name, weight in stand_in.named_parameters() if weight.requires_grad]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (
            "",
            "clip_path: no CLIP ConvNeXt is given, none is among the hub's downloads, and the hub does not give "
            f"{REPOSITORY} (HF_HUB_OFFLINE is set, so the hub is not asked); download {FILE_NAMES[-1]} from https://hug",
        ),
        (
            "nowhere.bin",
            "clip_path: there is no file nowhere.bin; download open_clip_pytorch_model.bin from https://hug",
        ),
    ],
)
def test_what_is_missing_is_named_with_where_to_get_it(place: str, said: str) -> None:
    with pytest.raises(Refusal) as refusal:
        open_backbone(place, KEY)
    assert str(refusal.value).startswith(said)
    assert str(refusal.value).endswith("and write its path, or stand-in for a tiny random one")


def test_an_empty_folder_and_another_network_are_refused(tmp_path: Path, stand_in: ClipBackbone) -> None:
    with pytest.raises(Refusal, match=r"holds none of open_clip_model\.safetensors"):
        open_backbone(str(tmp_path), KEY)
    other = tmp_path / "vit.safetensors"
    save_file({"visual.conv1.weight": torch.ones(2, 3, 4, 4)}, other)
    with pytest.raises(Refusal, match=r"clip_path: .*vit\.safetensors holds no ConvNeXt image encoder"):
        open_backbone(str(other), KEY)
    damaged = tmp_path / "damaged.safetensors"
    state = open_clip_state(stand_in)
    del state["visual.trunk.stages.2.blocks.1.gamma"]
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, damaged)
    with pytest.raises(Refusal, match=r"clip_path: .*trunk\.stages\.2\.blocks\.1\.gamma is missing"):
        open_backbone(str(damaged), KEY)


def test_the_stand_in_is_always_the_same(stand_in: ClipBackbone) -> None:
    torch.manual_seed(5)
    again = open_backbone(STAND_IN, KEY)
    assert all(
        torch.equal(a, b)
        for a, b in zip(stand_in.encoder.state_dict().values(), again.encoder.state_dict().values(), strict=True)
    )
    assert sum(weight.numel() for weight in again.parameters()) < 100_000
    assert STAND_IN_SIZES.depths == (1, 1, 2, 1)
