"""LPIPS and DISTS on random weights of the right shapes, laid in a folder as a person would."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.losses.deep_similarity import LPIPS, Dists, Lpips, find_lpips, open_lpips
from lora_trainer.losses.pretrained import Published
from lora_trainer.losses.random_features import RandomLpips
from lora_trainer.losses.vgg import vgg16_features

CHANNELS = (64, 128, 256, 512, 512)
ENDS = (3, 8, 15, 22, 29)  # relu1_2 to relu5_3
MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    state = {f"features.{name}": value for name, value in vgg16_features().state_dict().items()}
    torch.save(state, folder / "vgg16-397923af.pth")
    torch.save([torch.rand(1, count, 1, 1) for count in CHANNELS], folder / "lpips_weights.pt")
    alpha, beta = torch.rand(2, 1, 3 + sum(CHANNELS), 1, 1).unbind(0)
    total = alpha.sum() + beta.sum()
    torch.save({"alpha": alpha / total, "beta": beta / total}, folder / "dists_weights.pt")
    return folder


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.rand(2, 3, 32, 40, generator=torch_generator("y"))
    return (y + 0.1 * torch.randn(y.shape, generator=torch_generator("x"))).clamp(0, 1), y


def test_lpips_by_layer(folder: Path) -> None:
    x, y = pictures()
    features = vgg16_features(torch.load(folder / "vgg16-397923af.pth", weights_only=True))
    learned = torch.load(folder / "lpips_weights.pt", weights_only=True)
    total = torch.zeros(2)
    p, q = ((image - MEAN) / STD for image in (x, y))
    with torch.no_grad():
        for number, module in enumerate(features):
            p, q = module(p), module(q)
            if number in ENDS:
                apart = torch.nn.functional.normalize(p, dim=1) - torch.nn.functional.normalize(q, dim=1)
                total += (learned[ENDS.index(number)] * apart.square()).sum(1).mean((1, 2))
    torch.testing.assert_close(Lpips(str(folder))(x, y), total, rtol=1e-4, atol=1e-6)


def test_dists(folder: Path) -> None:
    x, y = pictures()
    dists = Dists(str(folder))
    assert dists(y, y).abs().max() < 1e-5
    near, far = dists(y + 0.1 * (x - y), y), dists(x, y)
    assert (near < far).all()
    assert far.shape == (2,)
    assert Dists(str(folder), clip_min=0.9)(x, y).tolist() == pytest.approx([0.9, 0.9])


def test_gradients_reach_the_output_alone(folder: Path) -> None:
    for network in (Lpips(str(folder)), Dists(str(folder))):
        x, y = pictures()
        x.requires_grad_()
        network(x, y).sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert x.grad.abs().max() > 0
        assert not any(value.requires_grad for value in network.parameters())


def test_missing_and_foreign_files_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as caught:
        Lpips(str(tmp_path))
    assert caught.value.problems[0].startswith(
        f"weights: there is no file {tmp_path / 'lpips_weights.pt'} with the weights of LPIPS; "
        "get lpips_weights.pt from https://github.com/photosynthesis-team/"
    )
    torch.save({"alpha": torch.zeros(1)}, tmp_path / "dists_weights.pt")
    with pytest.raises(
        Refusal, match=r"^weights: the file is not of DISTS, it has no alpha and beta; get dists_weights\.pt"
    ):
        Dists(str(tmp_path))
    torch.save([torch.zeros(1, 3)], tmp_path / "lpips_weights.pt")
    with pytest.raises(
        Refusal, match=r"^weights: the file is not of LPIPS, it has a list that is not a weight for each"
    ):
        Lpips(str(tmp_path))


def refusal(place: Path | str, look: Callable[[str, str], object] = find_lpips) -> str:
    with pytest.raises(Refusal) as caught:
        look(str(place), "lpips_weights")
    (problem,) = caught.value.problems
    return problem


def test_what_lpips_lacks_is_named_before_it_is_loaded(folder: Path, tmp_path: Path) -> None:
    find_lpips(str(folder), "lpips_weights")
    torch.save([], tmp_path / "lpips_weights.pt")
    cure = (
        "get vgg16-397923af.pth from https://download.pytorch.org/models/vgg16-397923af.pth and lpips_weights.pt from "
        f"{LPIPS.url}, and write the path of the folder that holds both, or stand-in for a network with random weights"
    )
    for look in (find_lpips, open_lpips):
        said = f"lpips_weights: there is no vgg16-397923af.pth in {tmp_path}; {cure}"
        assert refusal(tmp_path, look) == said
        assert refusal(tmp_path / "nichts", look) == f"lpips_weights: there is no folder {tmp_path / 'nichts'}; {cure}"
    (tmp_path / "leer ü").mkdir()
    missing = f"there is no vgg16-397923af.pth and no lpips_weights.pt in {tmp_path / 'leer ü'}; {cure}"
    assert refusal(tmp_path / "leer ü") == f"lpips_weights: {missing}"
    shutil.copy(folder / "vgg16-397923af.pth", tmp_path)
    find_lpips(str(tmp_path), "lpips_weights")
    foreign = "the file is not of LPIPS, it has a list that is not a weight for each channel of 5 layers"
    assert refusal(tmp_path, open_lpips) == f"lpips_weights: {foreign}; {cure}"


def test_without_a_place_lpips_is_among_torchs_downloads(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    downloads = tmp_path / "hub" / "checkpoints"
    assert refusal("").startswith(
        "lpips_weights: no weights of LPIPS are given, HF_HUB_OFFLINE is set, and there is no vgg16-397923af.pth "
        f"and no lpips_weights.pt in {downloads}; get vgg16-397923af.pth from "
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    find_lpips("", "lpips_weights")  # as they can be downloaded
    monkeypatch.setattr("lora_trainer.losses.deep_similarity.LPIPS", Published("LPIPS", "http://127.0.0.1:9/l.pt"))
    said = refusal("", open_lpips)
    assert said.startswith("lpips_weights: the weights of LPIPS could not be downloaded from http://127.0.0.1:9/l.pt (")
    assert said.endswith("or stand-in for a network with random weights")
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    shutil.copytree(folder, downloads, dirs_exist_ok=True)
    x, y = pictures()
    assert torch.equal(open_lpips("", "lpips_weights")(x, y), Lpips(str(folder))(x, y))


def test_the_stand_in_is_chosen_by_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "piq", None)
    find_lpips("stand-in", "lpips_weights")
    assert isinstance(open_lpips("stand-in", "lpips_weights"), RandomLpips)
    problem = "LPIPS and DISTS need the package piq, which is not installed; type pip install lora_trainer[metrics]"
    assert refusal("somewhere") == f"lpips_weights: {problem}"


def test_without_piq_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['piq'] = None\n"
        "from lora_trainer.errors import Refusal\n"
        "from lora_trainer.losses.image_losses import loss_named\n"
        "try:\n    loss_named('distsloss')()\nexcept Refusal as refusal:\n    print(refusal)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == (
        "LPIPS and DISTS need the package piq, which is not installed; type pip install lora_trainer[metrics]\n"
    )
