"""LPIPS and DISTS on random weights of the right shapes, laid in a folder as a person would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.losses.deep_similarity import Dists, Lpips
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
