"""What a layer of a LoRA file does to a weight, for every kind; the algebra is lycoris'.

Shapes: out, in, and the sides of the kernel where the layer is a convolution. A linear layer and a 1 x 1 convolution
hold the same numbers, so that a change for one of them fits the other. All sums are made in float32.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lora_trainer.errors import Refusal
from lora_trainer.models.adapter_file import FileLayer
from lora_trainer.models.adapter_names import BIAS, DORA, DOWN, MID, UP, AdapterKind

logging.getLogger("LyCORIS").setLevel(logging.ERROR)  # it tells of the packages that it does without

_PLAIN = "torch"  # of lycoris' implementations the one that needs no compiler and is the same on all devices


def is_its_own(layer: FileLayer) -> bool:
    """Whether the change is the same for every base model, so that changes can be added to each other."""
    return layer.kind in _OWN and not layer.dora


def own_change(layer: FileLayer) -> Tensor:
    """The change of the weight at strength 1, in the shape that the file gives it. For layers that are their own."""
    return _OWN[layer.kind](layer)


def changed_weight(name: str, layer: FileLayer, weight: Tensor, strength: float) -> Tensor:
    """The weight (float32) after the change at this strength, in the weight's shape.

    Between 0 and 1 a change goes in a straight line, also OFT's; BOFT's goes stage by stage and DoRA's by the length
    of each row, as in lycoris. Raises Refusal, with the layer's name, for a change of another size.
    """
    if layer.kind == "bias":
        return weight
    if layer.kind in _OWN:
        change = own_change(layer)
        _check_size(name, change, weight)
        if not layer.dora:
            return weight + strength * change.view_as(weight)
        return _decomposed(layer, weight.view_as(change) + change, strength).view_as(weight)
    try:
        return _ON_BASE[layer.kind](layer, weight, strength)
    except RuntimeError as error:  # shapes that do not go together
        raise _misfit(name, layer, weight) from error


def changed_bias(name: str, layer: FileLayer, bias: Tensor, strength: float) -> Tensor:
    """The bias (float32) after the change. Raises Refusal for a change of another size."""
    change = bias_change(layer)
    if change is None:
        return bias
    _check_size(f"{name} (bias)", change, bias)
    return bias + strength * change.float().view_as(bias)


def bias_change(layer: FileLayer) -> Tensor | None:
    return next((layer.tensors[ending] for ending in (BIAS, "b_norm") if ending in layer.tensors), None)


def _check_size(name: str, change: Tensor, weight: Tensor) -> None:
    if change.shape[:1] != weight.shape[:1] or change.numel() != weight.numel():
        found, needed = (" x ".join(map(str, tensor.shape)) for tensor in (change, weight))
        raise Refusal(f"{name}: the LoRA is for a layer of {found}, here it is {needed}; use files of the same family")


def _misfit(name: str, layer: FileLayer, weight: Tensor) -> Refusal:
    shape = " x ".join(map(str, weight.shape))
    return Refusal(f"{name}: this {layer.words} does not fit a layer of {shape}; use files of the same family")


# --------------------------------------------------------------------------------------------- the same for every base


def _numbers(layer: FileLayer, *endings: str) -> list[Tensor | None]:
    found = (layer.tensors.get(ending) for ending in endings)
    return [None if tensor is None else tensor.float() for tensor in found]


def _lora(layer: FileLayer) -> Tensor:
    from lycoris.functional.locon import diff_weight

    change: Tensor = diff_weight(*_numbers(layer, DOWN, UP, MID), gamma=layer.scale, backend=_PLAIN)
    return change


def _loha(layer: FileLayer) -> Tensor:
    from lycoris.functional.loha import diff_weight

    factors = _numbers(layer, "hada_w1_b", "hada_w1_a", "hada_w2_b", "hada_w2_a", "hada_t1", "hada_t2")
    change: Tensor = diff_weight(*factors, gamma=torch.tensor(layer.scale), backend=_PLAIN)
    return change


def _lokr(layer: FileLayer) -> Tensor:
    """Two whole matrices have the scale 1, whatever alpha says: lycoris, ComfyUI and A1111 agree."""
    from lycoris.functional.lokr import kron_weight

    endings = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
    change: Tensor = kron_weight(*_numbers(layer, *endings), scale=layer.scale, backend=_PLAIN)
    return change


_OWN: dict[AdapterKind, Callable[[FileLayer], Tensor]] = {
    "lora": _lora,
    "loha": _loha,
    "lokr": _lokr,
    "full": lambda layer: layer.tensors["diff"].float(),
    "norm": lambda layer: layer.tensors["w_norm"].float(),
}


def has_tucker(layers: Iterable[FileLayer]) -> bool:
    return any(MID in layer.tensors for layer in layers)


def without_tucker(layer: FileLayer) -> FileLayer:
    """The same LoRA without a Tucker core: core and down become one kernel of the same rank, exactly."""
    if MID not in layer.tensors:
        return layer
    from lycoris.functional import tucker_weight_from_conv

    down, mid = layer.tensors[DOWN].float(), layer.tensors[MID].float()
    joined = tucker_weight_from_conv(torch.eye(mid.shape[0], device=mid.device), down, mid)
    kept = {ending: tensor for ending, tensor in layer.tensors.items() if ending != MID}
    return FileLayer("lora", {**kept, DOWN: joined.to(layer.tensors[DOWN].dtype)})


# ------------------------------------------------------------------------------------------------ by the base's weight


def _decomposed(layer: FileLayer, weight: Tensor, strength: float) -> Tensor:
    """DoRA: the rows, or the columns, of the changed weight get the lengths that were trained."""
    from lycoris.functional import weight_decompose

    lengths = layer.tensors[DORA].float()
    by_row = lengths.shape[0] == weight.shape[0] and lengths.numel() == weight.shape[0]
    ones = [1] * (weight.dim() - 1)
    lengths = lengths.reshape(weight.shape[0], *ones) if by_row else lengths.reshape(1, weight.shape[1], *ones[1:])
    changed: Tensor = weight_decompose(weight, lengths, strength, by_row, backend=_PLAIN)
    return changed


def _glora(layer: FileLayer, weight: Tensor, strength: float) -> Tensor:
    from lycoris.modules.glora import GLoRAModule

    factors = _numbers(layer, "a1.weight", "a2.weight", "b1.weight", "b2.weight", "bm.weight")
    rank = layer.rank or 1
    alpha = torch.tensor(float(rank) if layer.alpha is None else layer.alpha)
    kernel = layer.tensors["b2.weight"].shape[2:]
    base = _bare(weight, tuple(kernel))
    with torch.no_grad():
        module = GLoRAModule.make_module_from_state_dict("", base, *factors, alpha).to(weight.device)
        change: Tensor = module.get_diff_weight(strength)[0]
    return weight + change.view_as(weight)


def _bare(weight: Tensor, kernel: tuple[int, ...]) -> nn.Module:
    """A layer with this weight, as the modules of lycoris ask for one."""
    out, into = weight.shape[:2]
    layer: nn.Module = nn.Linear(into, out, bias=False, device="meta")
    if kernel:
        layer = nn.Conv2d(into, out, (kernel[0], kernel[1]), bias=False, device="meta")
    layer.weight = nn.Parameter(weight.reshape(out, into, *kernel), requires_grad=False)
    return layer


def _ia3(layer: FileLayer, weight: Tensor, strength: float) -> Tensor:
    """One factor for each output, or for each input."""
    factors = layer.tensors["weight"].float().flatten()
    ones = [1] * (weight.dim() - 1)
    on_input = bool(layer.tensors["on_input"])
    factors = factors.view(1, -1, *ones[1:]) if on_input else factors.view(-1, *ones)
    return weight * (1 + strength * factors)


def _oft(layer: FileLayer, weight: Tensor, strength: float) -> Tensor:
    from lycoris.functional.diag_oft import diff_weight

    blocks, rescale = _numbers(layer, "oft_blocks", "rescale")
    constraint = _longest(layer, weight)
    change: Tensor = diff_weight(weight, blocks, _rows(rescale, weight), constraint=constraint, backend=_PLAIN)
    return weight + strength * change.view_as(weight)


def _boft(layer: FileLayer, weight: Tensor, strength: float) -> Tensor:
    from lycoris.functional.boft import diff_weight

    blocks, rescale = _numbers(layer, "oft_blocks", "rescale")
    constraint = _longest(layer, weight)
    change: Tensor = diff_weight(
        weight, blocks, _rows(rescale, weight), constraint=constraint, scale=strength, backend=_PLAIN
    )
    return weight + change.view_as(weight)


def _rows(rescale: Tensor | None, weight: Tensor) -> Tensor | None:
    return None if rescale is None else rescale.reshape(-1, *[1] * (weight.dim() - 1))


def _longest(layer: FileLayer, weight: Tensor) -> float:
    """OFT keeps its constraint in alpha, per output; 0 and nothing are no constraint."""
    alpha = layer.alpha or 0.0
    return 0.0 if math.isnan(alpha) else alpha * weight.shape[0]


_ON_BASE: dict[AdapterKind, Callable[[FileLayer, Tensor, float], Tensor]] = {
    "glora": _glora,
    "ia3": _ia3,
    "oft": _oft,
    "boft": _boft,
}
