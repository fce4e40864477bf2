"""The networks that a GAN's images are judged with: Inception and VGG16, from a file, or a stand-in by name.

Pictures are uint8 (b, 1 or 3, h, w).
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.errors import Refusal
from lora_trainer.losses.fid_inception import FID_WEIGHTS, build_fid_inception
from lora_trainer.losses.pretrained import Published, read_weights, wrong_content
from lora_trainer.losses.random_features import RandomFeatures, perceptual_vectors
from lora_trainer.losses.vgg import IMAGENET_MEAN, IMAGENET_STD, LAYERS_16, VGG16, vgg16_features

INCEPTION, VGG = "inception", "vgg"
STAND_IN, STAND_IN_MARK = "stand-in", "standin"
NVIDIA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics"
INCEPTION_SCRIPT = Published("the Inception network of FID", f"{NVIDIA}/inception-2015-12-05.pt")
VGG_SCRIPT = Published("the VGG16 network of StyleGAN's metrics", f"{NVIDIA}/vgg16.pt")
PICKLE = b"\x80"
CHUNK_BYTES = 2**24


class Sees(Protocol):
    """`features` and, of Inception, `probabilities`; of VGG `perceptual`, whose pictures are numbers from 0 to 255."""

    def features(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class FeatureNetwork:
    """`mark` is added to the names of its numbers where they cannot be compared with published ones, "" where they can.

    `identity` stands for its weights.
    """

    module: nn.Module
    mark: str
    identity: str

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """(b, d)"""
        return self._see("features", images)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """(b, classes)"""
        return self._see("probabilities", images)

    @torch.inference_mode()
    def perceptual(self, images: Tensor) -> Tensor:
        """(b, n): the squared distance of two rows is the perceptual difference. `images` are 0 to 255, of any kind."""
        return self._see("perceptual", images)

    def _see(self, what: str, images: Tensor) -> Tensor:
        seen: Tensor = getattr(self.module, what)(images.expand(-1, 3, -1, -1))
        return seen.float()


class InceptionScript(nn.Module):
    """NVIDIA's translation of the original graph, which enlarges pictures by itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def features(self, images: Tensor) -> Tensor:
        seen: Tensor = self.network(images, return_features=True)
        return seen

    def probabilities(self, images: Tensor) -> Tensor:
        seen: Tensor = self.network(images, no_output_bias=True)
        return seen


class VggScript(nn.Module):
    """NVIDIA's VGG16 with the weights of LPIPS."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def features(self, images: Tensor) -> Tensor:
        seen: Tensor = self.network(images, return_features=True)
        return seen

    def perceptual(self, images: Tensor) -> Tensor:
        seen: Tensor = self.network(images, resize_images=False, return_lpips=True)
        return seen


class TorchvisionVgg(nn.Module):
    """torchvision's VGG16 up to its second fully connected layer; layers count alike in perceptual differences."""

    mean: Tensor
    std: Tensor

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.convolutions = vgg16_features(state)
        self.connected = nn.ModuleList([nn.Linear(512 * 7 * 7, 4096), nn.Linear(4096, 4096)])
        for layer, number in zip(self.connected, (0, 3), strict=True):
            for name, value in layer.named_parameters():
                given = state.get(f"classifier.{number}.{name}")
                if not isinstance(given, Tensor) or given.shape != value.shape:
                    raise wrong_content(VGG16, f"no classifier.{number}.{name} of the shape {tuple(value.shape)}")
                value.data.copy_(given)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255)
        self.requires_grad_(False).eval()

    def features(self, images: Tensor) -> Tensor:
        x = F.interpolate(images.to(self.mean.dtype), size=(224, 224), mode="bilinear", antialias=True)
        x = F.max_pool2d(self.convolutions((x - self.mean) / self.std), 2).flatten(1)
        for layer in self.connected:
            x = F.relu(layer(x))
        return x

    def perceptual(self, images: Tensor) -> Tensor:
        x, seen = (images - self.mean) / self.std, []
        for name, layer in zip(LAYERS_16, self.convolutions, strict=False):
            x = layer(x)
            if name in ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"):
                seen.append(x)
        return perceptual_vectors(seen)


@dataclass(frozen=True)
class Kind:
    """A published form of a network. `build` gets what the file holds."""

    published: Published
    is_script: bool
    build: Callable[[Any], nn.Module]
    mark: str = ""


KINDS: Mapping[str, tuple[Kind, ...]] = {  # by the preset's keys, the best form first
    INCEPTION: (Kind(INCEPTION_SCRIPT, True, InceptionScript), Kind(FID_WEIGHTS, False, build_fid_inception)),
    VGG: (Kind(VGG_SCRIPT, True, VggScript), Kind(VGG16, False, TorchvisionVgg, mark="torchvision")),
}


def find_network(key: str, place: str) -> Path | None:
    """The file that a key of a preset stands for, None for the stand-in; without a place it is looked for in torch's.

    Raises Refusal where there is none.
    """
    if place == STAND_IN:
        return None
    if place:
        if not Path(place).is_file():
            raise Refusal(f"{key}: there is no file {place}; {_cure(key)}")
        return Path(place)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for kind in KINDS[key]:
        if (path := folder / kind.published.file_name).is_file():
            return path
    raise Refusal(f"{key}: no network is given, and there is none in {folder}; {_cure(key)}")


def mark_of(key: str, place: str) -> str:
    """What is added to the names of a network's numbers, without loading it. Raises Refusal where it is not there."""
    path = find_network(key, place)
    return STAND_IN_MARK if path is None else _kind(key, path).mark


def open_network(key: str, place: str, device: torch.device | str = "cpu") -> FeatureNetwork:
    """The network on the device. `place` is a path, "stand-in" or "". Raises Refusal.

    A TorchScript file is a program, though one that only PyTorch's operators serve: it is to come from its publisher.
    """
    path = find_network(key, place)
    if path is None:
        return FeatureNetwork(RandomFeatures().to(device).eval(), STAND_IN_MARK, f"{STAND_IN} 1")
    kind = _kind(key, path)
    content = _read_script(key, path) if kind.is_script else read_weights(kind.published, path)
    if not kind.is_script and not isinstance(content, Mapping):
        raise wrong_content(kind.published, f"a {type(content).__name__} instead of named tensors")
    return FeatureNetwork(kind.build(content).to(device).eval(), kind.mark, _digest(path))


def _kind(key: str, path: Path) -> Kind:
    is_script = _is_script(key, path)
    return next(kind for kind in KINDS[key] if kind.is_script == is_script)


def _cure(key: str) -> str:
    """What to get and where to put it."""
    published = KINDS[key][0].published
    return (
        f"download {published.url} and write the path of the file, or write {STAND_IN} for numbers that can be "
        "compared with each other alone"
    )


def _is_script(key: str, path: Path) -> bool:
    """Raises Refusal for a pickle that is neither a script nor PyTorch's tensors."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    with path.open("rb") as file:
        if path.suffix == ".pkl" and file.read(1) == PICKLE:
            raise Refusal(
                f"{key}: {path} is a pickle, which runs any program that is in it, so it is not opened; "
                f"the same network is in {KINDS[key][0].published.url}"
            )
    return False


def _read_script(key: str, path: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is what the published file is
            network: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise Refusal(f"{key}: {path} cannot be read ({str(error).splitlines()[0]}); {_cure(key)}") from error
    return network


def _digest(path: Path) -> str:
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
