"""How much of a UNet's activations is forgotten in the forward pass and computed again: four rungs of a ladder.

| rung | what is computed again | what is not kept |
|---|---|---|
| nothing | | |
| geglu | GEGLU's activation and product, elementwise | half of what a feed-forward's middle keeps |
| feed_forward | feed-forwards of transformer blocks | their middle, eight times as wide as the block |
| everything | resnets, transformers and text encoders | all but the inputs of blocks |

GEGLU is hidden * gelu(gate) with both from one projection (Shazeer, "GLU Variants Improve Transformer", 2020). Letters:
b batch, n tokens, f features in the middle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

Rung = Literal["nothing", "geglu", "feed_forward", "everything"]
RUNGS: tuple[Rung, ...] = ("nothing", "geglu", "feed_forward", "everything")


def recompute_feed_forwards(model: nn.Module, rung: Rung) -> int:
    """Have the feed-forwards of a model forget what the rung says; gives how many they are.

    On the rungs nothing and everything they keep what they keep: what is above or around them decides.
    """
    found = 0
    for layer in model.modules():
        if type(layer) in (FeedForward, SparingFeedForward):
            feed_forward = cast(SparingFeedForward, layer)
            if type(feed_forward.net[0]) is GEGLU:
                feed_forward.__class__ = SparingFeedForward
                feed_forward.rung = rung
                found += 1
    return found


def _again(function: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    result: Tensor = checkpoint(function, hidden, use_reentrant=False)  # which repeats random draws
    return result


def _kept(tensor: Tensor) -> Any:
    return tensor


class SparingFeedForward(FeedForward):
    """diffusers' own, but for what it keeps. `block` and `keep` are what a measurement of memory replaces."""

    rung: Rung = "nothing"
    block: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor] = staticmethod(_again)
    keep: Callable[[Tensor], Any] = staticmethod(_kept)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # (b, n, features), as is the result
        if torch.is_grad_enabled() and not args and not kwargs:
            if self.rung == "feed_forward":
                return self.block(super().forward, hidden_states)
            if self.rung == "geglu":
                return self._without_product(hidden_states)
        plain: Tensor = super().forward(hidden_states, *args, **kwargs)
        return plain

    def _without_product(self, hidden: Tensor) -> Tensor:
        """The layer behind the product keeps the projection in its place, which is kept anyhow."""
        projected: Tensor = cast(Any, self.net[0]).proj(hidden)  # (b, n, 2 f)
        product: Tensor = _Product.apply(projected)  # type: ignore[no-untyped-call]
        source, storage = projected.detach(), _storage(product)

        def pack(tensor: Tensor) -> Any:
            return _Forgotten(source, tensor.shape) if _storage(tensor) == storage else self.keep(tensor)

        with saved_tensors_hooks(pack, _unpack):
            for layer in self.net[1:]:
                product = layer(product)
        return product


class _Forgotten:
    """A product that is not kept, but can be had from its projection."""

    def __init__(self, projected: Tensor, shape: torch.Size) -> None:
        self.projected, self.shape = projected, shape

    def again(self) -> Tensor:
        return _product(self.projected).view(self.shape)


def _unpack(packed: Any) -> Tensor:
    return packed.again() if isinstance(packed, _Forgotten) else packed


class _Product(torch.autograd.Function):
    """hidden * gelu(gate) of a projection (..., 2 f), which alone is kept."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor) -> Tensor:
        ctx.save_for_backward(projected)
        return _product(projected)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (of_product,) = gradients
        (projected,) = ctx.saved_tensors
        hidden, gate = projected.chunk(2, dim=-1)
        of_projected = torch.empty_like(projected)
        of_hidden, of_gate = of_projected.chunk(2, dim=-1)
        torch.mul(of_product, F.gelu(gate), out=of_hidden)
        of_gate.copy_(torch.ops.aten.gelu_backward(of_product * hidden, gate))
        return of_projected


def _product(projected: Tensor) -> Tensor:
    hidden, gate = projected.chunk(2, dim=-1)
    return hidden * F.gelu(gate)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
