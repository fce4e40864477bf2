"""VGG's features against torchvision's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.vgg import cfgs, make_layers

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.losses.vgg import LAYERS_16, LAYERS_19, build_vgg19, channels_of, vgg16_features

MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def image() -> torch.Tensor:
    return torch.rand(2, 3, 36, 32, generator=torch_generator("image"))


def test_layers_stand_where_torchvision_has_them() -> None:
    kinds = {"conv": "Conv2d", "relu": "ReLU", "pool": "MaxPool2d"}
    for letter, names in (("D", LAYERS_16), ("E", LAYERS_19)):
        with torch.device("meta"):
            theirs = make_layers(cfgs[letter])
        assert [type(module).__name__ for module in theirs] == [kinds[name[:4]] for name in names]
    assert LAYERS_19.index("conv5_4") == 34
    assert [channels_of(name) for name in ("conv1_2", "relu2_1", "pool3", "conv5_4")] == [64, 128, 256, 512]


def test_features_are_torchvisions_but_for_the_border() -> None:
    torch.manual_seed(0)
    theirs = make_layers(cfgs["E"])
    state = {f"features.{name}": value for name, value in theirs.state_dict().items()}
    network = build_vgg19(["relu3_1", "conv1_2", "conv2_2"], state)
    found = network(image())
    assert list(found) == ["conv1_2", "conv2_2", "relu3_1"]
    assert len(network.features) == LAYERS_19.index("relu3_1") + 1
    values = F.pad((image() - MEAN) / STD, (1, 1, 1, 1), mode="replicate")
    values = F.conv2d(values, theirs[0].weight, theirs[0].bias)
    kept = {}
    for number in range(1, LAYERS_19.index("relu3_1") + 1):
        values = theirs[number](values.clone())
        kept[LAYERS_19[number]] = values.clone()
    for name, value in found.items():
        torch.testing.assert_close(value, kept[name], rtol=1e-4, atol=1e-5)
    assert found["conv1_2"].min() < 0 <= found["relu3_1"].min()


def test_vgg16_ends_with_its_last_activation() -> None:
    with torch.device("meta"):
        features = vgg16_features()
    assert len(features) == 30
    assert [tuple(value.shape) for value in features.parameters()] == [
        tuple(value.shape) for value in make_layers(cfgs["D"]).parameters()
    ]


def test_the_weights_are_frozen() -> None:
    network = build_vgg19(["conv1_2"])
    assert not any(value.requires_grad for value in network.parameters())
    assert sorted(network.state_dict()) == [
        "features.0.bias",
        "features.0.weight",
        "features.2.bias",
        "features.2.weight",
    ]


def test_unknown_layers_are_refused() -> None:
    with pytest.raises(Refusal, match=r"^layer_weights: VGG19 has no layer conv6_1, relu3_9; it has conv1_1, relu1_1"):
        build_vgg19(["conv6_1", "conv1_1", "relu3_9"])
    with pytest.raises(Refusal, match=r"^layer_weights: VGG19 is asked for no layer; it has conv1_1"):
        build_vgg19([])
