"""The perceptual loss, layer by layer, on a VGG19 with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.losses.perceptual import (
    FrequencyOptions,
    PerceptualDifference,
    default_layer_weights,
    projected_distance,
)
from lora_trainer.losses.vgg import build_vgg19

WEIGHTS = {"conv1_2": 0.5, "conv2_2": 2.0}


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(2, 2, 3, 24, 20, generator=torch_generator("pictures")).unbind(0)


def difference(layer_weights: dict[str, float] = WEIGHTS, criterion: str = "charbonnier", **options: object):
    torch.manual_seed(0)
    return PerceptualDifference(build_vgg19(list(layer_weights)), layer_weights, criterion, **options)


def test_default_layers() -> None:
    convolutions = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1, "conv4_4": 1, "conv5_4": 1}
    activations = {"relu1_2": 0.1, "relu2_2": 0.1, "relu3_4": 1, "relu4_4": 1, "relu5_4": 1}
    for criterion in ("charbonnier", "l1", "mse"):
        assert default_layer_weights(criterion) == convolutions
    for criterion in ("pd", "fd"):
        assert default_layer_weights(criterion) == activations
        assert default_layer_weights(f"{criterion}+l1") == {**convolutions, **activations}
    with pytest.raises(Refusal, match=r"^there is no criterion 'pd\+l2'; write one of charbonnier, l1, "):
        default_layer_weights("pd+l2")


@pytest.mark.parametrize("criterion", ["l1", "mse", "charbonnier"])
def test_values_by_layer(criterion: str) -> None:
    x, y = pictures()
    loss = difference(criterion=criterion)
    found, wanted = loss.network(x), loss.network(y)
    total = torch.zeros(2)
    for name, weight in WEIGHTS.items():
        apart = (found[name] - wanted[name]).abs()
        total += weight * (apart**2 if criterion == "mse" else apart).mean((1, 2, 3))
    torch.testing.assert_close(loss(x, y), total, rtol=1e-5, atol=1e-6)


def test_distributions_count_w_lambda() -> None:
    x, y = pictures()
    layers = {"relu1_2": 0.5, "conv2_1": 3.0}
    loss = difference(layers, "pd+l1", w_lambda=0.2)
    found, wanted = loss.network(x), loss.network(y)
    expected = 3 * (found["conv2_1"] - wanted["conv2_1"]).abs().mean((1, 2, 3))
    expected += 0.5 * 0.2 * projected_distance(found["relu1_2"], wanted["relu1_2"])
    torch.testing.assert_close(loss(x, y), expected)


def test_projected_distance_is_the_work_of_moving() -> None:
    x, y = (torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=torch_generator(name)) for name in "xy")
    expected = []
    for p, q in zip(x.numpy().reshape(2, 3, 20), y.numpy().reshape(2, 3, 20), strict=True):
        sums = [np.abs(np.cumsum(a / a.sum()) - np.cumsum(b / b.sum())).sum() for a, b in zip(p, q, strict=True)]
        expected.append(np.mean(sums))
    np.testing.assert_allclose(projected_distance(x, y), expected, rtol=1e-9)
    assert projected_distance(x, 3 * x).max() < 1e-12
    assert projected_distance(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)).item() == 0


def test_alpha_mixes_both() -> None:
    x, y = pictures()
    layers = {"relu1_1": 1.0}
    plain, moved = difference(layers, "l1"), difference(layers, "pd", w_lambda=1.0)
    mixed = difference(layers, "pd+l1", alpha=[0.25], w_lambda=1.0)
    torch.testing.assert_close(mixed(x, y), 0.75 * plain(x, y) + 0.25 * moved(x, y))


def test_frequency_distance_with_the_same_projections() -> None:
    x, y = pictures()
    loss = difference({"relu1_1": 1.0}, "fd", w_lambda=1.0, frequency=FrequencyOptions(16, 0.5, 2))
    directions = loss.projections.get_buffer("relu1_1")
    np.testing.assert_allclose(directions.flatten(1).norm(dim=1), np.ones(16), rtol=1e-6)
    spectra = [torch.fft.fft2(loss.network(image)["relu1_1"]) for image in (x, y)]
    total = torch.zeros(2)
    for weight, part in ((1.0, torch.abs), (0.5, torch.angle)):
        ordered = [F.conv2d(part(values), directions, stride=2).flatten(2).sort(-1).values for values in spectra]
        total += weight * (ordered[0] - ordered[1]).abs().mean((1, 2))
    torch.testing.assert_close(loss(x, y), total, rtol=1e-3, atol=1e-4)
    again = difference({"relu1_1": 1.0}, "fd", w_lambda=1.0, frequency=FrequencyOptions(16, 0.5, 2))
    assert torch.equal(again.projections.get_buffer("relu1_1"), directions)


@pytest.mark.parametrize("criterion", ["charbonnier", "pd", "fd"])
def test_only_the_output_gets_a_gradient(criterion: str) -> None:
    x, y = pictures()
    layers = {"relu1_2": 1.0}
    loss = difference(layers, criterion)
    x.requires_grad_()
    y.requires_grad_()
    loss(x, y).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() > 0
    assert y.grad is None
    assert all(value.grad is None for value in loss.parameters())
    assert loss(y, y).max() < 1e-5


def test_autocast_does_not_reach_the_network() -> None:
    x, y = pictures()
    loss = difference()
    plain = loss(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(x, y), plain)


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(
        Refusal, match=r"^layer_weights: conv1_2 has signs, which the criterion pd does not take; name relu"
    ):
        difference(criterion="pd")
    with pytest.raises(Refusal, match=r"^alpha: 3 numbers for the 2 layers conv1_2, conv2_2; write one for each$"):
        difference(alpha=[0, 0, 0])
    with pytest.raises(
        Refusal, match=r"^alpha: conv2_2 is to be compared as a distribution; write the criterion pd\+l1"
    ):
        difference(alpha=[0, 1])
    small = torch.zeros(1, 3, 4, 9)
    with pytest.raises(Refusal, match="patches of 5 x 5, but relu1_1 has only 4 x 9 places; use larger crops"):
        difference({"relu1_1": 1.0}, "fd")(small, small)
