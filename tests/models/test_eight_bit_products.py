"""Products of int8 with int8: how far they are from those with the widened weight, and when they are taken."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lora_trainer.models.adapters.layer import Dropouts, LayerPlan
from lora_trainer.models.adapters.lora import LoraLayer
from lora_trainer.models.adapters.network import add_adapter, fuse_layers
from lora_trainer.models.eight_bit_products import multiplies_int8, narrowed, product, product_back, widened
from lora_trainer.models.eight_bits import EightBitLinear, store_in_8_bits


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Rows of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    sizes = 10.0 ** torch.randint(-3, 3, (shape[0], 1), generator=generator)
    return torch.randn(shape, generator=generator) * sizes


def furthest_row(found: Tensor, wanted: Tensor) -> float:
    return float(((found - wanted).norm(dim=1) / wanted.norm(dim=1)).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_token_is_off_by_about_a_hundredth(dtype: torch.dtype) -> None:
    x, bias = drawn(40, 256).to(dtype), drawn(64, 1)[:, 0].to(dtype) * 0.001
    weight, row_scale = narrowed(torch.randn(64, 256, generator=torch.Generator().manual_seed(1)), "int8")
    exact = x.float() @ widened(weight, row_scale, torch.float32).t() + bias.float()
    found = product(x, weight, row_scale, bias, in_8_bits=True)
    assert (found.dtype, found.shape) == (dtype, (40, 64))
    assert 0.002 < furthest_row(found.float(), exact) < 0.02
    of_y = drawn(40, 64, seed=2).to(dtype)
    exact = of_y.float() @ widened(weight, row_scale, torch.float32)
    found = product_back(of_y, weight, row_scale, in_8_bits=True)
    assert (found.dtype, found.shape) == (dtype, (40, 256))
    assert 0.002 < furthest_row(found.float(), exact) < 0.02


def test_numbers_that_int8_has_come_out_exactly() -> None:
    x = torch.tensor([[127.0, -3.0, 0.0, 1.0] * 2] * 32)
    weight = torch.tensor([[127.0, 5.0, -2.0, 0.0] * 2] * 8) * torch.arange(1.0, 9.0)[:, None]
    narrow, row_scale = narrowed(weight, "int8")
    assert torch.equal(product(x, narrow, row_scale, None, in_8_bits=True), x @ weight.t())
    nothing = product(torch.zeros(32, 8), narrow, row_scale, None, in_8_bits=True)
    assert torch.equal(nothing, torch.zeros(32, 8))


@pytest.mark.parametrize("shape", [(31, 64, 64), (32, 60, 64), (32, 64, 60)])
def test_what_has_few_tokens_or_odd_features_takes_the_wide_weight(shape: tuple[int, int, int]) -> None:
    tokens, features_in, features_out = shape
    weight, row_scale = narrowed(torch.randn(features_out, features_in), "int8")
    x, of_y = torch.randn(tokens, features_in), torch.randn(tokens, features_out)
    for narrow in (True, False):
        assert torch.equal(product(x, weight, row_scale, None, narrow), x @ widened(weight, row_scale, x.dtype).t())
        assert torch.equal(product_back(of_y, weight, row_scale, narrow), of_y @ widened(weight, row_scale, x.dtype))


@pytest.mark.parametrize("fused", [False, True])
def test_a_lora_on_it_gets_nearly_the_same_gradients(fused: bool) -> None:
    def learned(multiply: bool) -> tuple[Tensor, list[Tensor]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64, bias=False))
        store_in_8_bits(model, "int8", multiply)
        layers = [layer for layer in model if isinstance(layer, EightBitLinear)]
        assert [layer.in_8_bits for layer in layers] == [multiply] * 2
        add_adapter(model, {str(i): LayerPlan(str(i), "lora", 4, 3.0) for i in (0, 2)}, Dropouts(), 1)
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                nn.init.normal_(layer.weights().up, generator=torch.Generator().manual_seed(2))
        if fused:
            assert fuse_layers(model) == 2
        y = model(torch.randn(2, 40, 64, generator=torch.Generator().manual_seed(3)))
        y.pow(2).mean().backward()
        return y.detach(), [weight.grad for weight in model.parameters() if weight.grad is not None]

    (found, gradients), (wanted, exact) = learned(True), learned(False)
    assert found.shape == (2, 40, 64)
    assert 0 < float((found - wanted).norm() / wanted.norm()) < 0.02
    assert len(gradients) == 4
    for one, other in zip(gradients, exact, strict=True):
        assert 0 < float((one - other).norm() / other.norm()) < 0.03


def test_float8_is_stored_alone() -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    other = copy.deepcopy(model)
    store_in_8_bits(model, "fp8", multiply=True)
    store_in_8_bits(other, "int8", multiply=True)
    assert [each[0].in_8_bits for each in (model, other)] == [False, True]


def test_rows_lie_as_rows_and_columns_as_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tensor cores want, however a picture lay before it became tokens."""
    given: list[tuple[int, ...]] = []
    real = torch._int_mm

    def watched(a: Tensor, b: Tensor) -> Tensor:
        given.append((*a.stride(), *b.stride()))
        return real(a, b)

    monkeypatch.setattr(torch, "_int_mm", watched)
    weight, row_scale = narrowed(torch.randn(32, 64), "int8")
    tokens = torch.randn(1, 64, 8, 8).permute(0, 2, 3, 1).reshape(-1, 64)
    assert tokens.stride() == (1, 64)
    product(tokens, weight, row_scale, None, in_8_bits=True)
    product_back(torch.randn(32, 64).t(), weight, row_scale, in_8_bits=True)
    assert given == [(64, 1, 1, 64), (32, 1, 1, 32)]


def test_what_is_not_finite_stays_so() -> None:
    weight, row_scale = narrowed(torch.randn(32, 64), "int8")
    x = torch.randn(40, 64)
    x[3, 5], x[7, 0] = float("nan"), float("inf")
    finite = product(x, weight, row_scale, None, in_8_bits=True).isfinite().all(1)
    assert (~finite).nonzero().flatten().tolist() == [3, 7]


def test_a_device_that_multiplies_no_int8_is_found_by_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert multiplies_int8(cpu)
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: torch.zeros(len(a), b.shape[1], dtype=torch.int32))
    assert not multiplies_int8(cpu)

    def refuses(a: Tensor, b: Tensor) -> Tensor:
        raise NotImplementedError("Could not run 'aten::_int_mm' with arguments from the 'MPS' backend")

    monkeypatch.setattr(torch, "_int_mm", refuses)
    assert not multiplies_int8(cpu)
