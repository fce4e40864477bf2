"""The features of VGG16 and VGG19 (Simonyan and Zisserman 2014), built only as deep as they are wanted.

Layers are named as in the literature: conv3_4 is the fourth convolution of the third block, relu3_4 its activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from lora_trainer.errors import Refusal
from lora_trainer.losses.pretrained import Published, fill

VGG16 = Published("VGG16", "https://download.pytorch.org/models/vgg16-397923af.pth")
VGG19 = Published("VGG19", "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth")
CONVOLUTIONS_16, CONVOLUTIONS_19 = (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)  # in each block
CHANNELS = (64, 128, 256, 512, 512)
Border: TypeAlias = Literal["zeros", "replicate"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def layer_names(convolutions: Sequence[int]) -> tuple[str, ...]:
    """All layers in order; a layer's place is its number in torchvision's `features`."""
    names = []
    for block, count in enumerate(convolutions, start=1):
        for number in range(1, count + 1):
            names += [f"conv{block}_{number}", f"relu{block}_{number}"]
        names.append(f"pool{block}")
    return tuple(names)


LAYERS_16, LAYERS_19 = layer_names(CONVOLUTIONS_16), layer_names(CONVOLUTIONS_19)


def channels_of(layer: str) -> int:
    """How many channels a layer gives."""
    return CHANNELS[int(layer.partition("_")[0][-1]) - 1]


class Vgg19Features(nn.Module):
    """Takes pictures, (b, 3, h, w) from 0 to 1, and gives the wanted layers' values in the network's order.

    The weights are frozen. The first convolution repeats the border where torchvision's adds grey.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layers: Sequence[str]) -> None:
        super().__init__()
        self.wanted = tuple(name for name in LAYERS_19 if name in layers)
        self.features = _built(CONVOLUTIONS_19, LAYERS_19.index(self.wanted[-1]) + 1, first_padding="replicate")
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        values = (image - self.mean) / self.std
        found = {}
        for name, module in zip(LAYERS_19, self.features, strict=False):
            values = module(values)
            if name in self.wanted:
                found[name] = values
        return found


def build_vgg19(layers: Sequence[str], state: Any = None) -> Vgg19Features:
    """With torchvision's state, or with PyTorch's random weights where there is none. Raises Refusal."""
    unknown = [name for name in layers if name not in LAYERS_19]
    if unknown or not layers:
        found = f"has no layer {', '.join(unknown)}; it has" if unknown else "is asked for no layer; it has"
        raise Refusal(f"layer_weights: VGG19 {found} {', '.join(LAYERS_19)}")
    network = Vgg19Features(layers)
    if state is not None:
        fill(network.features, state, VGG19)
    return network


def vgg16_features(state: Any = None) -> nn.Sequential:
    """torchvision's `features` up to relu5_3, with its state or with random weights. Raises Refusal."""
    features = _built(CONVOLUTIONS_16, LAYERS_16.index("relu5_3") + 1, first_padding="zeros")
    if state is not None:
        fill(features, state, VGG16)
    return features


def _built(convolutions: Sequence[int], count: int, first_padding: Border) -> nn.Sequential:
    modules: list[nn.Module] = []
    before = 3
    for block, channels in zip(convolutions, CHANNELS, strict=True):
        for _ in range(block):
            border: Border = "zeros" if modules else first_padding
            if len(modules) < count:  # before their weights are made
                modules.append(nn.Conv2d(before, channels, 3, padding=1, padding_mode=border))
            modules.append(nn.ReLU())
            before = channels
        modules.append(nn.MaxPool2d(2))
    return nn.Sequential(*modules[:count])
