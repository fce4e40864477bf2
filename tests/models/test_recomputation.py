"""The rungs of recomputation: the same gradients on each, and less that is kept the higher it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention import FeedForward
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from lora_trainer.models.adapters.layer import Dropouts, LayerPlan
from lora_trainer.models.adapters.network import add_adapter, fuse_layers
from lora_trainer.models.recomputation import RUNGS, Rung, SparingFeedForward, recompute_feed_forwards
from tests.models.adapters.test_lora import names_of, tiny_unet, unet_inputs

B, N, WIDTH = 2, 6, 8
MIDDLE = 4 * WIDTH


def run(layer: nn.Module, x: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, list[Tensor], int]:
    """The result, the gradients of x and of all weights, and the bytes that are kept for the backward pass."""
    x = x.clone().requires_grad_(True)
    layer.zero_grad()
    kept: dict[int, int] = {}
    weights = {weight.untyped_storage()._cdata for weight in layer.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    for each in layer.modules():
        if isinstance(each, SparingFeedForward):
            each.keep = keep  # type: ignore[method-assign, assignment]
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None), saved_tensors_hooks(keep, same):
        y = layer(x)
    y.float().pow(2).sum().backward()
    return y.detach(), [x.grad, *(weight.grad for weight in layer.parameters())], sum(kept.values())  # type: ignore[list-item]


def same(tensor: Tensor) -> Tensor:
    return tensor


@pytest.mark.parametrize("rung", ["geglu", "feed_forward"])
def test_a_feed_forward_gives_the_same_and_keeps_less(rung: Rung) -> None:
    torch.manual_seed(0)
    layer = FeedForward(WIDTH, activation_fn="geglu")
    x = torch.randn(B, N, WIDTH)
    plain, plain_gradients, plain_bytes = run(layer, x)
    assert recompute_feed_forwards(layer, rung) == 1
    found, gradients, kept = run(layer, x)
    torch.testing.assert_close(found, plain, rtol=0, atol=0)
    for ours, wanted in zip(gradients, plain_gradients, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6)
    projection, result = B * N * 2 * MIDDLE * 4, B * N * WIDTH * 4
    assert plain_bytes > 1.9 * projection
    expected = {"geglu": projection + 2 * result, "feed_forward": 2 * result}[rung]
    assert kept <= expected, (kept, plain_bytes)
    recompute_feed_forwards(layer, "nothing")
    assert run(layer, x)[2] == plain_bytes


def test_in_half_precision_it_gives_the_same() -> None:
    torch.manual_seed(0)
    layer = FeedForward(WIDTH, activation_fn="geglu")
    x = torch.randn(B, N, WIDTH)
    plain, plain_gradients, _ = run(layer, x, torch.bfloat16)
    recompute_feed_forwards(layer, "geglu")
    found, gradients, _ = run(layer, x, torch.bfloat16)
    torch.testing.assert_close(found, plain, rtol=0, atol=0)
    for ours, wanted in zip(gradients, plain_gradients, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("hidden_dropout", [0.0, 0.5])
def test_a_unet_with_lora_learns_the_same_on_each_rung(hidden_dropout: float) -> None:
    """Also where something is dropped, which is drawn once and repeated."""
    gradients: dict[str, list[Tensor]] = {}
    for rung in RUNGS:
        unet: Any = tiny_unet()
        plans = {path: LayerPlan(name, "lora", 2, 2.0) for path, name in names_of(unet).items()}
        add_adapter(unet, plans, Dropouts(hidden=hidden_dropout), 1)
        fuse_layers(unet)
        for name, weight in unet.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(3))
        assert recompute_feed_forwards(unet, rung) == 4  # down one, middle one, up two
        if rung == "everything":
            unet.enable_gradient_checkpointing()
        unet.train()
        torch.manual_seed(7)
        unet(*unet_inputs()).sample.pow(2).sum().backward()
        gradients[rung] = [weight.grad for weight in unet.parameters() if weight.grad is not None]
    for rung in RUNGS[1:]:
        for ours, plain in zip(gradients[rung], gradients["nothing"], strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


def test_without_gradients_nothing_is_different_and_other_activations_stay() -> None:
    layer = FeedForward(WIDTH, activation_fn="gelu")
    assert recompute_feed_forwards(layer, "geglu") == 0
    assert type(layer) is FeedForward
