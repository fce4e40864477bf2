"""Frozen weights in 8 bits: how far they are off, what gradients go through them, what a pass keeps of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lora_trainer.models.adapters.layer import Dropouts, LayerPlan
from lora_trainer.models.adapters.lora import LoraLayer
from lora_trainer.models.adapters.network import add_adapter, fuse_layers
from lora_trainer.models.eight_bit_products import Form, narrowed, widened
from lora_trainer.models.eight_bits import (
    EightBitConv2d,
    EightBitLinear,
    cast_to_fp8,
    store_in_8_bits,
)

FORMS: tuple[Form, ...] = ("fp8", "int8")
LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(48, 20), (2, 5, 48)),
    "without bias": (nn.Linear(48, 20, bias=False), (3, 48)),
    "of nothing": (nn.Linear(48, 20), (0, 5, 48)),
    "convolution": (nn.Conv2d(6, 8, 3, stride=2, padding=1), (2, 6, 9, 8)),
    "groups": (nn.Conv2d(6, 8, (1, 3), dilation=2, padding=(0, 2), groups=2, bias=False), (2, 6, 5, 7)),
}


def share(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("form", "least", "most"), [("fp8", 0.02, 0.03), ("int8", 0.005, 0.01)])
def test_rounding_is_a_small_part_of_any_rows_size(form: Form, least: float, most: float) -> None:
    sizes = 10.0 ** torch.arange(-6, 4)
    weight = torch.randn(10, 512, generator=torch.Generator().manual_seed(0)) * sizes[:, None]
    narrow, scale = narrowed(weight, form)
    assert narrow.element_size() == 1
    assert scale.shape == (10, 1)
    back = widened(narrow, scale, torch.float32)
    for row in range(10):
        assert least < share(back[row], weight[row]) < most


@pytest.mark.parametrize("form", FORMS)
def test_zeros_and_the_largest_number_come_back_as_they_were(form: Form) -> None:
    weight = torch.tensor([[0.0, 0.0, 0.0], [-3.0, 0.0, 3.0]])
    assert torch.equal(widened(*narrowed(weight, form), torch.float32), weight)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", LAYERS)
def test_result_and_gradient_are_those_of_the_rounded_weight(kind: str, form: Form) -> None:
    plain = nn.Sequential(copy.deepcopy(LAYERS[kind][0])).requires_grad_(False)
    small = copy.deepcopy(plain)
    assert store_in_8_bits(small, form) == plain[0].weight.numel()
    assert type(small[0]) in (EightBitLinear, EightBitConv2d)
    with torch.no_grad():
        plain[0].weight.copy_(widened(small[0].weight, small[0].row_scale, torch.float32))
    x = torch.randn(LAYERS[kind][1], generator=torch.Generator().manual_seed(1))
    found, wanted = _pass(small, x), _pass(plain, x)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def _pass(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_(True)
    y = model(x)
    y.pow(2).sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.mark.parametrize("form", FORMS)
def test_a_pass_keeps_nothing_wide_of_the_weights(form: Form) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Conv2d(1, 4, 3)).requires_grad_(False)
    store_in_8_bits(model, form)
    kept: list[Tensor] = []
    x = torch.randn(8, 64, requires_grad=True)
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        y = model[1](model[0](x)[None, None])
    assert y.dtype == torch.bfloat16
    weights = [layer.weight for layer in model]
    assert {tensor.data_ptr() for tensor in kept if tensor.element_size() == 1} == {w.data_ptr() for w in weights}
    assert all(tensor.numel() < 100 for tensor in kept if tensor.element_size() > 1)  # the factors


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_lora_on_it_learns_as_on_the_rounded_weight(form: Form, fused: bool) -> None:
    torch.manual_seed(0)
    small = nn.Sequential(nn.Linear(12, 20), nn.Linear(20, 6, bias=False))
    plain = copy.deepcopy(small)
    store_in_8_bits(small, form)
    for wide, narrow in zip(plain, small, strict=True):
        wide.weight.data = widened(narrow.weight, narrow.row_scale, torch.float32)
    found = []
    for model in (small, plain):
        add_adapter(model, {str(i): LayerPlan(str(i), "lora", 4, 3.0) for i in (0, 1)}, Dropouts(), 1)
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                nn.init.normal_(layer.weights().up, generator=torch.Generator().manual_seed(2))
        if fused:
            assert fuse_layers(model) == 2
        y = model(torch.randn(7, 12, generator=torch.Generator().manual_seed(3)))
        y.pow(2).sum().backward()
        found.append([y.detach(), *(weight.grad for weight in model.parameters() if weight.requires_grad)])
    assert len(found[0]) == 5
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_what_a_model_keeps_as_it_is() -> None:
    model: Any = nn.Module()
    model.conv_in = nn.Conv2d(4, 8, 3)
    model.norm = nn.GroupNorm(2, 8)
    model.embedding = nn.Embedding(5, 8)
    model.layer = nn.Linear(8, 8)
    assert store_in_8_bits(model, "int8") == 64
    assert {name: tensor.dtype for name, tensor in model.state_dict().items() if tensor.element_size() < 4} == {
        "layer.weight": torch.int8
    }


def test_a_plain_cast_leaves_the_layers_own_class() -> None:
    model = nn.Sequential(nn.Linear(8, 4))
    assert cast_to_fp8(model) == 32
    assert type(model[0]) is nn.Linear
    assert model[0].weight.dtype == torch.float8_e4m3fn
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.ones(1, 8)).dtype == torch.bfloat16
