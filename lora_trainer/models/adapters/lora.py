"""Standard LoRA and LoCon inside a model: y = base(x) + up(down(x)) * alpha / rank, with down and up trained.

The layers are peft's, so that diffusers and peft can work with the trained model; what peft does not have, kohya's
three kinds of dropout, is added here. Letters: b batch, r rank.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Conv2d, Linear
from torch import Tensor, nn

from lora_trainer.draws import torch_generator
from lora_trainer.models.adapters.fused import fused_linear, fused_pointwise, is_fusible
from lora_trainer.models.adapters.layer import ADAPTER, Dropouts, LayerPlan, Tensors

DOWN, UP, ALPHA = "lora_down.weight", "lora_up.weight", "alpha"


@dataclass(frozen=True)
class LoraWeights:
    """One layer's LoRA. The last two dimensions are there only on a convolution."""

    down: Tensor  # (rank, in) or (rank, in, height, width)
    up: Tensor  # (out, rank) or (out, rank, 1, 1)
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


class LoraLayer(nn.Module):
    """What kohya's LoRA can and peft's cannot; peft's classes come behind it."""

    dropouts: Dropouts
    fused = False  # whether the layer and its LoRA are one function, where nothing stands against it

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """peft's attributes."""

    @property
    def enabled(self) -> bool:
        return not bool(self.disable_adapters)

    @enabled.setter
    def enabled(self, value: bool) -> None:
        trainable = [weight for weight in self.parameters() if weight.requires_grad]
        self.enable_adapters(value)  # which also changes what requires gradients
        self.requires_grad_(False)
        for weight in trainable:
            weight.requires_grad_(True)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not (self.training and self.dropouts.any and self.enabled):
            if self.fused and self._can_fuse(x):
                return self._fused(x)
            plain: Tensor = super().forward(x, *args, **kwargs)
            return plain
        base: Tensor = self.base_layer(x, *args, **kwargs)
        if self.dropouts.module and float(torch.rand(())) < self.dropouts.module:
            return base
        down, up = self.lora_A[ADAPTER], self.lora_B[ADAPTER]
        hidden = down(x.to(down.weight.dtype))
        scale = float(self.scaling[ADAPTER])
        if self.dropouts.hidden:
            hidden = F.dropout(hidden, self.dropouts.hidden)
        if self.dropouts.rank:
            hidden = hidden * _rank_mask(hidden, self.dropouts.rank)
            scale /= 1 - self.dropouts.rank
        added: Tensor = up(hidden) * scale
        return base + added.to(base.dtype)

    def _can_fuse(self, x: Tensor) -> bool:
        """With this LoRA alone and switched on; a convolution's result shall lie in memory as its input does."""
        alone = self.enabled and not self.merged and list(self.lora_A) == self.active_adapters
        return alone and (x.dim() != 4 or x.is_contiguous(memory_format=torch.channels_last))

    def _fused(self, x: Tensor) -> Tensor:
        down, up, scale = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight, float(self.scaling[ADAPTER])
        if isinstance(self.base_layer, nn.Conv2d):
            return fused_pointwise(x, self.base_layer, down, up, scale)
        return fused_linear(x, self.base_layer, down, up, scale)

    def fuse(self) -> bool:
        """Make layer and LoRA one function if the layer is of a kind that can; gives whether it is."""
        self.fused = is_fusible(self.base_layer)
        return self.fused

    def weights(self) -> LoraWeights:
        down, up = (adapters[ADAPTER].weight for adapters in (self.lora_A, self.lora_B))
        return LoraWeights(down, up, float(self.lora_alpha[ADAPTER]))

    def set_weights(self, weights: LoraWeights) -> None:
        self.lora_A[ADAPTER].weight = nn.Parameter(weights.down)
        self.lora_B[ADAPTER].weight = nn.Parameter(weights.up)
        self.set_alpha(weights.alpha, weights.rank)

    def set_alpha(self, alpha: float, rank: int) -> None:
        self.r[ADAPTER] = rank
        self.lora_alpha[ADAPTER] = alpha
        self.scaling[ADAPTER] = alpha / rank

    def file_tensors(self) -> Tensors:
        weights = self.weights()
        return {DOWN: weights.down, UP: weights.up, ALPHA: torch.tensor(weights.alpha)}

    def misfit(self, tensors: Mapping[str, Tensor]) -> str:
        if problem := _not_standard(tensors):
            return problem
        current, new = self.weights(), weights_in(tensors)
        if new.rank != current.rank:
            return (
                f"the LoRA file has rank {new.rank}, this training {current.rank}; set network_dim to {new.rank}, "
                "or dim_from_weights to true"
            )
        if _size(new) != _size(current):
            (in_file, out_file), (in_here, out_here) = _size(new), _size(current)
            return (
                f"the LoRA file is for a layer from {in_file} to {out_file} features, this base model's is from "
                f"{in_here} to {out_here}; use a file of the same family of base models"
            )
        return ""

    @torch.no_grad()
    def load_file_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The alpha comes with the weights, because they mean nothing without it; a Linear's weights fit a 1 x 1
        convolution and the other way round."""
        current, new = self.weights(), weights_in(tensors)
        current.down.copy_(new.down.view_as(current.down))
        current.up.copy_(new.up.view_as(current.up))
        self.set_alpha(new.alpha, new.rank)

    @torch.no_grad()
    def limit_norm(self, largest: float) -> None:
        """kohya's scale_weight_norms: both factors take the square root of what is too much."""
        weights = self.weights()
        change = weights.up.flatten(1) @ weights.down.flatten(1) * (weights.alpha / weights.rank)
        factor = shrinking(change.norm(), largest).sqrt()
        weights.down.mul_(factor)
        weights.up.mul_(factor)


class LoraLinear(LoraLayer, Linear):
    """On a Linear."""


class LoraConv2d(LoraLayer, Conv2d):
    """On a convolution: down has its kernel, up is 1 x 1."""


OURS: Mapping[type, type[LoraLayer]] = {Linear: LoraLinear, Conv2d: LoraConv2d}


def shrinking(norm: Tensor, largest: float) -> Tensor:
    """The factor that brings a norm down to the largest one, 1 where it is shorter."""
    norm = norm.clamp(min=largest / 2)
    return norm.clamp(max=largest) / norm


def weights_in(tensors: Mapping[str, Tensor]) -> LoraWeights:
    """A layer of a file, float32; without an alpha the scale is 1, as elsewhere."""
    down, up = tensors[DOWN].float(), tensors[UP].float()
    return LoraWeights(down, up, float(tensors[ALPHA]) if ALPHA in tensors else float(down.shape[0]))


def add_lora_layers(model: nn.Module, plans: Mapping[str, LayerPlan], dropouts: Dropouts, seed: int) -> None:
    """Give every path of `plans` a float32 LoRA that changes nothing yet (up is zero); freezes the model.

    Down depends on the seed and the layer's name, not on the order of the layers, the device or the number of
    processes. The rank is the plan's also where the layer is smaller. On the meta device only the shapes are made.
    """
    # A pattern, because peft would take a list for name endings; on meta, because peft would draw from torch's
    # global generator and in the base's dtype.
    targets = "|".join(re.escape(path) for path in plans)
    config = LoraConfig(r=1, lora_alpha=1, target_modules=targets)
    inject_adapter_in_model(config, model, ADAPTER, low_cpu_mem_usage=True)
    for path, layer in dict(model.named_modules()).items():
        if type(layer) not in OURS:
            continue
        layer.__class__ = OURS[type(layer)]
        ours = cast(LoraLayer, layer)
        ours.dropouts = dropouts
        plan = plans[path]
        ours.set_weights(_first_weights(ours, plan, torch_generator(seed, "lora_init", plan.name)))


def _first_weights(layer: LoraLayer, plan: LayerPlan, generator: torch.Generator) -> LoraWeights:
    shapes = layer.weights()  # of rank 1
    device = layer.base_layer.weight.device
    down = torch.empty(plan.rank, *shapes.down.shape[1:], device="meta" if device.type == "meta" else "cpu")
    nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
    up = torch.zeros(shapes.up.shape[0], plan.rank, *shapes.up.shape[2:], device=device)
    return LoraWeights(down.to(device), up, plan.alpha)


def _rank_mask(hidden: Tensor, share: float) -> Tensor:
    """Which ranks of each sample are kept, shaped for (b, ..., r) or (b, r, height, width)."""
    axis = 1 if hidden.dim() == 4 else hidden.dim() - 1
    shape = [hidden.shape[i] if i in (0, axis) else 1 for i in range(hidden.dim())]
    return (torch.rand(shape, device=hidden.device) >= share).to(hidden.dtype)


def _not_standard(tensors: Mapping[str, Tensor]) -> str:
    if unknown := sorted(tensors.keys() - {DOWN, UP, ALPHA}):
        return f"the file has {unknown[0]}, so this is not a standard LoRA; choose the LoRA_type that it was made with"
    if missing := sorted({DOWN, UP} - tensors.keys()):
        return f"the file has no {missing[0]}; it is incomplete, so give another copy of it"
    return ""


def _size(weights: LoraWeights) -> tuple[int, int]:
    return weights.down[0].numel(), weights.up[:, 0].numel()
