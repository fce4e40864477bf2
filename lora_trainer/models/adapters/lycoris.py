"""The layers of LyCORIS (LoHa, LoKr, DyLoRA, ...) inside a model, each as a child of the layer that it changes.

The modules and their algebra are lycoris'. Only how a change is applied is ours: in float32, and added to what the
frozen layer gives, because lycoris adds it to weights in half precision and so rounds small changes away.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.dylora import DyLoraModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule
from torch import Tensor, nn

from lora_trainer.draws import draw_key
from lora_trainer.models.adapters.layer import Dropouts, LayerPlan, Tensors
from lora_trainer.models.adapters.lora import shrinking

CHILD = "adapter"  # the name of the layer's child
Change = tuple[Tensor, Tensor | None]  # of the weight, and of the bias

logging.getLogger("LyCORIS").setLevel(logging.ERROR)  # it tells of every layer, and of packages that it does without


class LycorisLayer(nn.Module):
    """What all kinds share; lycoris' class comes behind it."""

    enabled = True
    multiplied = 0  # how many parameters are multiplied with each other; 0 is all

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """lycoris' classes have no types."""

    @property
    def org_weight(self) -> Tensor:
        """The frozen weight as the algebra needs it; lycoris gives it in its own number format."""
        weight: Tensor = self.org_module[0].weight
        return weight.detach().float()

    def change(self) -> Change:
        """What is added to the weight and the bias."""
        raise NotImplementedError

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.enabled or (self.training and self._left_out()):
            return self._base(x, *args, **kwargs)
        if self.bypass_mode:
            moved: Tensor = self.bypass_forward(x)
            return moved
        base = self._base(x, *args, **kwargs)
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.change()
        bias = None if bias is None else bias.to(x.dtype)
        added: Tensor = self.op(x, weight=weight.to(x.dtype), bias=bias, **self.kw_dict)
        return base + added

    def _base(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result: Tensor = self.org_forward(x, *args, **kwargs)
        return result

    def _left_out(self) -> bool:
        share = float(self.module_dropout)
        return share > 0 and float(torch.rand(())) < share

    def file_tensors(self) -> Tensors:
        return {name: tensor.detach() for name, tensor in self.state_dict().items()}

    def misfit(self, tensors: Mapping[str, Tensor]) -> str:
        return _misfit(tensors, self.file_tensors())

    @torch.no_grad()
    def load_file_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            self._take(name, tensor)

    def _take(self, name: str, tensor: Tensor) -> None:
        """One tensor of a file into the parameter or buffer of that name."""
        if name == "alpha":
            self._take_alpha(float(tensor))
            return
        parent, _, last = name.rpartition(".")
        found: Tensor = getattr(self.get_submodule(parent), last)
        found.copy_(tensor.view_as(found))
        if hasattr(self, "scalar"):  # it is part of the factors in a file
            self.scalar.data.fill_(1.0)

    def _take_alpha(self, alpha: float) -> None:
        self.alpha.fill_(alpha)
        if hasattr(self, "scale"):
            self.scale = alpha / self.lora_dim

    @torch.no_grad()
    def limit_norm(self, largest: float) -> None:
        """Every factor of the product takes its root of what is too much."""
        factors = self.factors()
        root = shrinking(self.measured().norm(), largest) ** (1 / (self.multiplied or len(factors)))
        for factor in factors:
            factor.mul_(root)

    def measured(self) -> Tensor:
        """What is not to become longer than a norm."""
        return self.change()[0]

    def factors(self) -> list[nn.Parameter]:
        """The parameters whose product is the change."""
        return [weight for name, weight in self.named_parameters() if name not in ("scalar", "dora_scale", "rescale")]


class _Decomposing(LycorisLayer):
    """DoRA: what the change does to the direction counts; the length is trained apart."""

    def product(self) -> Tensor:
        raise NotImplementedError

    def measured(self) -> Tensor:
        return self.product()

    def change(self) -> Change:
        product = self.product()
        if not self.wd:
            return product, None
        return self.apply_weight_decompose(self.org_weight + product) - self.org_weight, None


class LoConLayer(_Decomposing, LoConModule):
    """Factors of the rank's size; with Tucker a third one for the kernel."""

    def product(self) -> Tensor:
        product: Tensor = self.make_weight(self.device) * self.scale
        return product

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.wd or self.bypass_mode or not self.enabled:
            return super().forward(x, *args, **kwargs)
        base = self._base(x, *args, **kwargs)
        if self.training and self._left_out():
            return base
        added: Tensor = self.bypass_forward_diff(x)  # down, then up: far less work than making the whole change
        return base + added.to(base.dtype)


class LoHaLayer(_Decomposing, LohaModule):
    """The elementwise product of two products."""

    def product(self) -> Tensor:
        product: Tensor = self.get_weight(self.shape) * self.scalar  # get_diff_weight() scales twice
        return product


class LoKrLayer(_Decomposing, LokrModule):
    """The Kronecker product of a small and a large matrix, each of them factored or not."""

    def product(self) -> Tensor:
        product: Tensor = self.get_weight(self.shape) * self.scalar  # get_diff_weight() scales twice
        return product


class GLoRALayer(LycorisLayer, GLoRAModule):
    """W a1 a2 + b1 b2."""

    multiplied = 2

    def change(self) -> Change:
        return self.make_weight(), None


class _Rotation(LycorisLayer):
    oft_blocks: nn.Parameter

    def change(self) -> Change:
        return self.make_weight(device=self.oft_blocks.device, diff=True), None

    def measured(self) -> Tensor:
        return self.oft_blocks

    def factors(self) -> list[nn.Parameter]:
        return [self.oft_blocks]


class DiagOFTLayer(_Rotation, DiagOFTModule):
    """A rotation of the outputs in blocks."""


class BOFTLayer(_Rotation, ButterflyOFTModule):
    """Rotations of the outputs in blocks that overlap like a butterfly network's."""


class IA3Layer(LycorisLayer, IA3Module):
    """A factor for each input or output."""

    def change(self) -> Change:
        return self.make_weight(diff=True), None

    def _take(self, name: str, tensor: Tensor) -> None:
        if name == "on_input":
            self.train_input = bool(tensor)
        super()._take(name, tensor)


class FullLayer(LycorisLayer, FullModule):
    """A change of every weight and bias."""

    multiplied = 1

    def change(self) -> Change:
        weight, bias = self.weight, self.bias
        if self.training and self.rank_dropout:
            kept = (torch.rand(self.dim, device=weight.device) >= self.rank_dropout).to(weight.dtype)
            if self.rank_dropout_scale:
                kept = kept / kept.mean()
            weight = weight * kept.view(-1, *[1] * (weight.dim() - 1))
            bias = None if bias is None else bias * kept
        return weight, bias

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Without lycoris' renaming, which subtracts a copy of the frozen weights."""
        return nn.Module.state_dict(self, *args, **kwargs)

    def file_tensors(self) -> Tensors:
        tensors = {"diff": self.weight.detach()}
        return tensors if self.bias is None else {**tensors, "diff_b": self.bias.detach()}

    def _take(self, name: str, tensor: Tensor) -> None:
        super()._take({"diff": "weight", "diff_b": "bias"}[name], tensor)


class NormLayer(LycorisLayer, NormModule):
    """A change of a norm's weight and bias."""

    multiplied = 1

    def change(self) -> Change:
        return self.w_norm, self.b_norm


class DyLoRALayer(LycorisLayer, DyLoraModule):
    """LoRA whose ranks are trained block by block, so that the first ones alone are a LoRA too.

    A step draws the number of blocks that take part and trains the last of them; previews and files use all.
    """

    multiplied = 2

    def change(self) -> Change:
        count = int(torch.randint(self.block_count, (1,))) + 1 if self.training else self.block_count
        frozen = count - 1 if self.training else 0
        ups = [up.detach() if index < frozen else up for index, up in enumerate(self.up_list[:count])]
        downs = [down.detach() if index < frozen else down for index, down in enumerate(self.down_list[:count])]
        # lycoris divides by the number of blocks, and its files by the rank; here both are the rank that takes part
        scale = self.alpha / (count * self.block_size)
        return (torch.cat(ups, 1) @ torch.cat(downs) * scale).view(self.shape), None

    def _take(self, name: str, tensor: Tensor) -> None:
        if name == "alpha":
            self._take_alpha(float(tensor))
        elif name == "lora_up.weight":
            for block, part in zip(self.up_list, torch.split(tensor, self.block_size, 1), strict=True):
                block.copy_(part)
        else:
            for block, part in zip(self.down_list, torch.split(tensor.flatten(1), self.block_size), strict=True):
                block.copy_(part)


LAYERS: Mapping[str, type[LycorisLayer]] = {
    "locon": LoConLayer,
    "loha": LoHaLayer,
    "lokr": LoKrLayer,
    "ia3": IA3Layer,
    "dylora": DyLoRALayer,
    "glora": GLoRALayer,
    "diag-oft": DiagOFTLayer,
    "boft": BOFTLayer,
    "full": FullLayer,
    "norm": NormLayer,
}


def add_lycoris_layers(
    model: nn.Module, plans: Mapping[str, LayerPlan], dropouts: Dropouts, seed: int
) -> dict[str, str]:
    """Put a layer of its plan's kind beside every path; the reason by path where that cannot be (BOFT of some sizes).

    The first weights depend on the seed and the layer's name alone.
    """
    refused: dict[str, str] = {}
    for path, plan in plans.items():
        base = model.get_submodule(path)
        try:
            layer = make_lycoris_layer(base, plan, dropouts, seed)
        except ValueError as error:
            refused[path] = str(error)
            continue
        object.__setattr__(layer, "org_forward", base.forward)
        base.add_module(CHILD, layer)
        object.__setattr__(base, "forward", layer.forward)
    return refused


def make_lycoris_layer(base: nn.Module, plan: LayerPlan, dropouts: Dropouts, seed: int) -> LycorisLayer:
    """A layer on the device of its base, in float32. ValueError where the kind cannot do this base's size."""
    options = {
        "lora_dim": plan.rank,
        "alpha": plan.alpha,
        "dropout": dropouts.hidden,
        "rank_dropout": dropouts.rank,
        "module_dropout": dropouts.module,
        "rank_dropout_scale": dropouts.scales_rank,
        **plan.options,
    }
    with _drawn_from(seed, plan.name), _quiet():
        layer = LAYERS[plan.algo](plan.name, base, 1.0, **options)
    if plan.algo == "full":
        for copy in ("_org_weight", "org_bias"):  # of the frozen weights, of which nothing is wanted
            object.__setattr__(layer, copy, None)
    weight = base.get_parameter("weight")
    return layer.to(weight.device, torch.float32)


@contextlib.contextmanager
def _drawn_from(seed: int, name: str) -> Iterator[None]:
    """lycoris draws from torch's global generator; within, that is the layer's own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw_key(seed, "lora_init", name) & 0x7FFF_FFFF_FFFF_FFFF)
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """lycoris prints a warning for every LoHa and LoKr with dropout; the preset's rules say it once."""
    with contextlib.redirect_stdout(None):
        yield


def _misfit(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    if unknown := sorted(tensors.keys() - expected.keys()):
        return f"the file has {unknown[0]}, which this kind of layer has not; choose the LoRA_type it was made with"
    if missing := sorted(expected.keys() - tensors.keys() - {"alpha"}):
        return f"the file has no {missing[0]}, which this kind of layer needs; choose the LoRA_type it was made with"
    for name, tensor in tensors.items():
        if (tensor.numel(), tensor.shape[:1]) != (expected[name].numel(), expected[name].shape[:1]):
            return (
                f"{name} of the file has the shape {tuple(tensor.shape)}, here it has {tuple(expected[name].shape)}; "
                "set the rank and the options with which the file was made, or use a file of the same kind of base"
            )
    return ""
