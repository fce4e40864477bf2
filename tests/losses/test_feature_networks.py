"""The networks that judge a GAN's images: which file becomes which, and what is said of the others."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.errors import Refusal
from lora_trainer.losses.feature_networks import INCEPTION, VGG, VGG_SCRIPT, mark_of, open_network
from lora_trainer.losses.fid_inception import FidInception, build_fid_inception, enlarged
from lora_trainer.losses.random_features import RandomFeatures


class Script(nn.Module):
    """Takes the options that the published scripts take, and shows which ones it was given."""

    def forward(
        self, img: Tensor, return_features: bool = False, no_output_bias: bool = False,
        resize_images: bool = True, return_lpips: bool = False,
    ) -> Tensor:  # fmt: skip
        seen = img.to(torch.float32).flatten(1).mean(1, keepdim=True)
        if return_features:
            return torch.cat([seen, seen + 1], 1)
        if no_output_bias:
            return torch.softmax(torch.cat([seen, seen + 1, seen], 1), 1)
        if return_lpips and not resize_images:
            return seen * 3
        return seen * 0


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "netz ü.pt"
    torch.jit.script(Script()).save(str(path))
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


IMAGES = torch.full((2, 1, 8, 8), 100, dtype=torch.uint8)


def test_a_script_is_asked_as_the_published_ones_are(script: Path) -> None:
    inception, vgg = open_network(INCEPTION, str(script)), open_network(VGG, str(script))
    assert (inception.mark, vgg.mark) == ("", "")
    assert inception.features(IMAGES).tolist() == [[100, 101]] * 2
    torch.testing.assert_close(inception.probabilities(IMAGES), torch.tensor([[0.0, 1, 0]] * 2).softmax(1))
    assert vgg.features(IMAGES).tolist() == [[100, 101]] * 2
    assert vgg.perceptual(IMAGES.float()).tolist() == [[300]] * 2
    assert inception.identity == vgg.identity != open_network(INCEPTION, "stand-in").identity


def test_without_a_path_torchs_own_folder_is_looked_into(script: Path, cache: Path) -> None:
    with pytest.raises(Refusal, match=re.escape(f"inception: no network is given, and there is none in {cache}; down")):
        mark_of(INCEPTION, "")
    script.rename(cache / "inception-2015-12-05.pt")
    assert mark_of(INCEPTION, "") == ""
    assert open_network(INCEPTION, "").features(IMAGES).shape == (2, 2)
    torch.save({}, cache / "vgg16-397923af.pth")
    assert mark_of(VGG, "") == "torchvision"


def test_a_missing_file_says_what_to_get(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as caught:
        mark_of(VGG, str(tmp_path / "nichts.pt"))
    assert str(caught.value) == (
        f"vgg: there is no file {tmp_path / 'nichts.pt'}; download {VGG_SCRIPT.url} and write the path of the file, or "
        "write stand-in for numbers that can be compared with each other alone"
    )


def test_a_pickle_of_modules_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "vgg16.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(Refusal, match=r"vgg16\.pkl is a pickle, which runs any program .* network is in https"):
        open_network(VGG, str(path))


def test_damaged_and_other_files_are_refused(script: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.pt"
    half.write_bytes(script.read_bytes()[: script.stat().st_size // 2])
    with pytest.raises(Refusal, match=r"half\.pt cannot be read as tensors"):
        open_network(INCEPTION, str(half))
    other = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(1008, 2047)}, other)
    with pytest.raises(Refusal, match=r"pytorch-fid's Inception, it has nothing for Conv2d_1a_3x3\.conv\.weight"):
        open_network(INCEPTION, str(other))
    torch.save([1, 2], other)
    with pytest.raises(Refusal, match=r"a list instead of named tensors"):
        open_network(INCEPTION, str(other))


def torchvision_inception() -> nn.Module:
    from torchvision.models.inception import Inception3

    torch.manual_seed(0)
    network = Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval()
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.01, 0.02)
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
    return network


@torch.no_grad()
def test_pytorch_fids_weights_make_the_inception_of_2015(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against torchvision's network with its pooling put right: borders out of means, maxima in the last block."""
    other = torchvision_inception()
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(other.state_dict(), path)
    network = open_network(INCEPTION, str(path))
    assert network.mark == ""
    images = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found, probabilities = network.features(images), network.probabilities(images)
    x = (enlarged(images.float()) - 128) / 128
    import torchvision.models.inception as module

    plain = F.avg_pool2d
    stem = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"]
    mixed = [f"Mixed_{block}" for block in ["5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b"]]
    monkeypatch.setattr(module.F, "avg_pool2d", lambda x, **_: plain(x, 3, 1, 1, count_include_pad=False))
    for name in [*stem, *mixed]:
        x = getattr(other, name)(x)
    monkeypatch.setattr(module.F, "avg_pool2d", lambda x, **_: F.max_pool2d(x, 3, 1, 1))
    wanted = other.Mixed_7c(x).mean((2, 3))
    assert found.std() > 1e-3
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert isinstance(other.fc, nn.Linear)
    torch.testing.assert_close(probabilities, (wanted @ other.fc.weight.t()).softmax(1), rtol=1e-3, atol=1e-6)


def test_a_state_of_another_shape_is_refused() -> None:
    state = {name: value for name, value in FidInception().state_dict().items() if "num_batches" not in name}
    assert isinstance(build_fid_inception(state), FidInception)
    with pytest.raises(Refusal, match=r"the shape \(5,\) for fc\.bias, which has \(1008,\)"):
        build_fid_inception({**state, "fc.bias": torch.zeros(5)})


@pytest.mark.parametrize("side", [32, 299, 512])
def test_pictures_are_enlarged_as_the_published_script_does_it(side: int) -> None:
    """There by a grid that is moved by half the difference of a pixel, with the border repeated."""
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).double()
    theta = torch.eye(2, 3).double()
    theta[:, 2] += 1 / side - 1 / 299
    grid = F.affine_grid(theta[None], [1, 3, 299, 299], align_corners=False)
    wanted = F.grid_sample(image, grid, "bilinear", "border", align_corners=False)
    torch.testing.assert_close(enlarged(image), wanted, rtol=0, atol=1e-9)


def test_the_stand_in_is_the_same_for_ever_and_sees_differences() -> None:
    network = open_network(INCEPTION, "stand-in")
    assert network.mark == "standin"
    image = torch.arange(32 * 32 * 3).view(1, 3, 32, 32).remainder(251).to(torch.uint8)
    features = network.features(image)
    assert features.shape == (1, 336)
    torch.testing.assert_close(features[0, [0, 100, 335]], STAND_IN_SEES, rtol=1e-3, atol=1e-4)
    assert (network.features(image.flip(3)) - features).abs().max() > 1e-3
    assert network.features(image.repeat(1, 1, 4, 4)).shape == (1, 336)
    assert network.probabilities(image).sum() == pytest.approx(1)
    assert torch.equal(network.features(image[:, :1]), network.features(image[:, :1].expand(-1, 3, -1, -1)))
    near, far = (network.perceptual(image.float() + noise) for noise in (0.5, torch.rand(1, 3, 32, 32) * 200))
    own = network.perceptual(image.float())
    assert 0 < float((near - own).square().sum()) < float((far - own).square().sum()) / 10
    assert not [name for name, _ in RandomFeatures().named_parameters()]


STAND_IN_SEES = torch.tensor([0.4705, 0.2387, 0.1300])


@pytest.mark.slow
def test_torchvisions_vgg(tmp_path: Path) -> None:
    from torchvision.models import vgg16

    torch.manual_seed(0)
    other = vgg16(weights=None).eval()
    path = tmp_path / "vgg16-397923af.pth"
    torch.save(other.state_dict(), path)
    network = open_network(VGG, str(path))
    assert network.mark == "torchvision"
    images = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (images / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        wanted = other.classifier[:6](other.avgpool(other.features(x)).flatten(1))
    torch.testing.assert_close(network.features(images), wanted, rtol=1e-3, atol=1e-4)
    seen = network.perceptual(images[:, :, :64, :64].float())
    assert float(seen.square().sum()) == pytest.approx(5, rel=1e-4)  # a length of 1 in each of five layers
