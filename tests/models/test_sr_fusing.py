"""One convolution in place of three: the same pictures, the same gradients, fewer sums."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from lora_trainer.models.sr_fusing import fuse_threefold
from lora_trainer.models.sr_networks import SrNetwork, build_network

Upscaler = Callable[..., SrNetwork]


@pytest.fixture
def pair() -> tuple[torch.nn.Module, torch.nn.Module]:
    """The same SPAN as it is built, and fused; float64, so that rounding does not hide anything."""
    torch.manual_seed(0)
    plain = build_network("span", 2, {"feature_channels": 8}).module.double().train()
    with torch.no_grad():
        for weight in plain.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    fused = copy.deepcopy(plain)
    assert fuse_threefold(fused) == 20
    return plain, fused


def test_pictures_and_gradients_are_the_same(pair: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    plain, fused = pair
    image = torch.rand(2, 3, 12, 9, dtype=torch.float64)
    torch.testing.assert_close(fused(image), plain(image), rtol=1e-9, atol=1e-10)
    for module in pair:
        module(image).square().sum().backward()
    theirs = dict(plain.named_parameters())
    for name, weight in fused.named_parameters():
        if theirs[name].grad is None:
            assert weight.grad is None, name
        else:
            torch.testing.assert_close(weight.grad, theirs[name].grad, rtol=1e-7, atol=1e-9)


def test_evaluation_and_names_stay(pair: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    plain, fused = (module.eval() for module in pair)
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(fused(image), plain(image))
    assert list(fused.state_dict()) == list(plain.state_dict())


def test_a_copy_uses_its_own_weights(pair: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    _, fused = pair
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    before = fused(image)
    other = copy.deepcopy(fused)
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    assert torch.equal(fused(image), before)
    assert not torch.equal(other(image), before)


def test_bf16_loses_no_more_than_three_convolutions_do() -> None:
    torch.manual_seed(0)
    plain = build_network("span", 2, {"feature_channels": 16}).module.train()
    fused = copy.deepcopy(plain)
    fuse_threefold(fused)
    image = torch.rand(2, 3, 16, 16)
    exact = plain(image)
    with torch.autocast("cpu", torch.bfloat16):
        errors = [float((module(image).float() - exact).abs().mean()) for module in (plain, fused)]
    assert errors[1] <= errors[0] * 1.1


def test_other_networks_are_left_alone() -> None:
    assert fuse_threefold(build_network("compact", 2, {"num_feat": 8, "num_conv": 2}).module) == 0
