"""A layer and its LoRA as one function: equal to peft's sum in result and gradients, and only where it can be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn

from lora_trainer.models.adapters.layer import Dropouts, LayerPlan
from lora_trainer.models.adapters.lora import LoraLayer
from lora_trainer.models.adapters.network import adapter_disabled, add_adapter, fuse_layers
from tests.models.adapters.test_lora import names_of, tiny_unet, unet_inputs

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(12, 20), (2, 5, 12)),
    "without bias": (lambda: nn.Linear(12, 20, bias=False), (3, 12)),
    "pointwise": (lambda: nn.Conv2d(12, 20, 1).to(memory_format=torch.channels_last), (2, 12, 4, 3)),
}


def with_lora(layer: nn.Module, rank: int = 4, dropouts: Dropouts | None = None) -> tuple[nn.Module, LoraLayer]:
    """In a model, with an up that is not zero; the scale is 3 / rank."""
    model = nn.Sequential(layer)
    add_adapter(model, {"0": LayerPlan("0", "lora", rank, 3.0)}, dropouts or Dropouts(), 1)
    (found,) = (each for each in model.modules() if isinstance(each, LoraLayer))
    with torch.no_grad():
        found.weights().up.normal_(generator=torch.Generator().manual_seed(5))
    return model, found


def result(model: nn.Module, x: Tensor, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """What comes out, and the gradients of x, down and up."""
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    x = x.clone().requires_grad_(True)
    model.zero_grad()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        y = model(x)
    y.float().pow(2).sum().backward()
    named = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    return {"y": y.detach(), "x": x.grad, **named}  # type: ignore[dict-item]


def errors(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    assert found.keys() == wanted.keys()
    return {name: float((found[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted}


@pytest.mark.parametrize("rank", [1, 4, 32])
@pytest.mark.parametrize("kind", LAYERS)
def test_it_is_equal_to_pefts_layer(kind: str, rank: int) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    model, layer = with_lora(make(), rank)
    x = torch.randn(shape)
    plain = result(model, x)
    assert layer.fuse()
    fused = result(model, x)
    assert fused["y"].shape == plain["y"].shape
    assert max(errors(fused, plain).values()) < 2e-6


@pytest.mark.parametrize("kind", LAYERS)
def test_under_autocast_it_is_no_farther_from_the_truth_than_pefts_layer(kind: str) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    model, layer = with_lora(make())
    x = torch.randn(16, *shape[1:])
    truth = result(model, x)
    for base_dtype in (torch.float32, torch.bfloat16):
        layer.base_layer.to(base_dtype)
        layer.fused = False
        plain = result(model, x, torch.bfloat16)
        layer.fuse()
        fused = result(model, x, torch.bfloat16)
        assert {name: value.dtype for name, value in fused.items()} == {n: v.dtype for n, v in plain.items()}
        ours, pefts = errors(fused, truth), errors(plain, truth)
        assert all(ours[name] < 1.3 * pefts[name] + 1e-4 for name in ours), (ours, pefts)


def test_a_frozen_down_gets_no_gradient_and_up_the_same() -> None:
    torch.manual_seed(0)
    model, layer = with_lora(nn.Linear(6, 8))
    layer.weights().down.requires_grad_(False)
    x = torch.randn(3, 6)
    plain = result(model, x)
    layer.fuse()
    fused = result(model, x)
    assert len(fused) == 3
    assert max(errors(fused, plain).values()) < 1e-6


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("linear", [True, False])
def test_a_whole_unet_learns_the_same(linear: bool, checkpointing: bool) -> None:
    unet = tiny_unet(linear)
    names = names_of(unet)
    add_adapter(unet, {path: LayerPlan(name, "lora", 2, 2.0) for path, name in names.items()}, Dropouts(), 1)
    for layer in unet.modules():
        if isinstance(layer, LoraLayer):
            nn.init.normal_(layer.weights().up, std=0.1)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    unet.train()
    gradients = []
    for fused in (False, True):
        unet.zero_grad()
        if fused:
            assert fuse_layers(unet) == len(names)
        unet(*unet_inputs()).sample.pow(2).sum().backward()
        gradients.append([weight.grad.clone() for weight in unet.parameters() if weight.grad is not None])
    assert len(gradients[0]) == 2 * len(names)
    for plain, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


class Unlike(nn.Linear):
    """What a quantised layer is to torch: a Linear by name only."""


@pytest.mark.parametrize(
    "layer", [Unlike(6, 8), nn.Conv2d(6, 8, 3), nn.Conv2d(6, 8, 1, stride=2)], ids=["other class", "3 x 3", "stride 2"]
)
def test_other_layers_stay_as_they_are(layer: nn.Module) -> None:
    model, lora = with_lora(layer)
    assert not lora.fuse()
    assert fuse_layers(model) == 0


def test_what_stands_against_it_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    model, layer = with_lora(nn.Linear(6, 8), dropouts=Dropouts(hidden=0.5))
    layer.fuse()
    calls: list[str] = []
    fused = type(layer)._fused
    monkeypatch.setattr(type(layer), "_fused", lambda self, x: calls.append("fused") or fused(self, x))
    x = torch.randn(3, 6)
    model.train()
    model(x)
    assert calls == []  # something is dropped
    model.eval()
    with_layer = model(x)
    assert calls == ["fused"]
    with adapter_disabled(model):
        torch.testing.assert_close(model(x), layer.base_layer(x))
    assert calls == ["fused"]
    layer.merge()
    torch.testing.assert_close(model(x), with_layer, rtol=1e-4, atol=1e-5)
    assert calls == ["fused"]


def test_a_convolution_whose_channels_come_first_keeps_them_there(monkeypatch: pytest.MonkeyPatch) -> None:
    model, layer = with_lora(nn.Conv2d(12, 20, 1))
    plain = model(torch.ones(2, 12, 4, 3))
    assert layer.fuse()
    monkeypatch.setattr(type(layer), "_fused", None)  # is not called
    found = model(torch.ones(2, 12, 4, 3))
    assert found.is_contiguous()
    assert torch.equal(found, plain)


def test_a_copy_and_peft_itself_give_the_same() -> None:
    torch.manual_seed(0)
    model, layer = with_lora(nn.Linear(6, 8))
    layer.fuse()
    x = torch.randn(3, 6)
    copied: Any = copy.deepcopy(model)
    torch.testing.assert_close(copied(x), model(x), rtol=0, atol=0)
    pefts = copy.deepcopy(layer)
    pefts.__class__ = PeftLinear
    torch.testing.assert_close(pefts(x), model(x))
