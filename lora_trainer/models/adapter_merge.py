"""Several LoRAs as one, exactly by putting their ranks side by side, or as the nearest LoRA of a given rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.models.adapter_delta import bias_change, is_its_own, own_change, without_tucker
from lora_trainer.models.adapter_file import AdapterFile, FileLayer, in_kohya_names
from lora_trainer.models.adapter_names import ALPHA, BIAS, DOWN, UP, kernel_of, layer_places
from lora_trainer.models.base_configs import Kind
from lora_trainer.models.checkpoint import KIND_WORDS
from lora_trainer.models.low_rank import (
    Decomposed,
    RankRule,
    decompose,
    decompose_product,
    factors,
    kept_rank,
    lost_share,
)

_LISTED = 3


@dataclass(frozen=True)
class Weighted:
    """A layer and how much of it is wanted."""

    layer: FileLayer
    ratio: float


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer: `lost` is a share of the length of its change."""

    name: str
    rank_before: int | None
    rank: int
    lost: float
    largest: float = 0.0  # singular value
    smallest: float = 0.0  # of those that are kept


def merge_adapters(
    files: Sequence[AdapterFile],
    ratios: Sequence[float],
    ranks: tuple[RankRule, RankRule] | None,
    device: torch.device,
) -> tuple[dict[str, FileLayer], list[LayerReport]]:
    """The layers of one file (float32) that do what all of them do together.

    Without `ranks` (for linear layers and 1 x 1 kernels, for larger kernels) the merged file has as many ranks as all
    files together, and nothing is lost. Raises Refusal for files of different families of base models, for layers of
    different sizes, and for kinds whose changes cannot be added without the base model.
    """
    kind = common_kind(files)
    gathered = _gathered(files, ratios, kind)
    if problems := _problems(gathered, exact=ranks is None):
        raise Refusal(*problems)
    places = layer_places(kind) if kind else {}
    layers, reports = {}, []
    for name, parts in gathered.items():
        parts = [Weighted(_on(part.layer, device), part.ratio) for part in parts]
        tensors: dict[str, Tensor] = _added_bias(parts)
        kinds = {part.layer.kind for part in parts}
        if "norm" in kinds:
            layers[name] = FileLayer("norm", {"w_norm": _sum(parts), **_renamed_bias(tensors)})
        elif kinds == {"bias"}:
            layers[name] = FileLayer("bias", tensors)
        elif kinds <= {"full", "bias"} and ranks is None:
            layers[name] = FileLayer("full", {"diff": _sum(parts), **tensors})
        else:
            kernel = kernel_of(kind, places[name].path) if kind and name in places else ()
            change, report = _low_rank(name, [p for p in parts if p.layer.kind != "bias"], ranks, kernel)
            layers[name] = FileLayer("lora", {**change, **tensors})
            reports.append(report)
    return layers, reports


def common_kind(files: Sequence[AdapterFile]) -> Kind | None:
    """The family of base models of all files. Raises Refusal where two differ."""
    kinds = {file.base_kind: file for file in files}
    told = [kind for kind in kinds if kind is not None]
    if len(told) > 1:
        one, two = told[:2]
        raise Refusal(
            f"{kinds[one].path} is for {KIND_WORDS[one]} and {kinds[two].path} for {KIND_WORDS[two]}; "
            "merge files of the same family"
        )
    return told[0] if told else None


def _gathered(files: Sequence[AdapterFile], ratios: Sequence[float], kind: Kind | None) -> dict[str, list[Weighted]]:
    gathered: dict[str, list[Weighted]] = {}
    for file, ratio in zip(files, ratios, strict=True):
        for name, layer in in_kohya_names(file, kind).layers.items():
            if ratio:
                gathered.setdefault(name, []).append(Weighted(layer, ratio))
    return gathered


def _problems(gathered: Mapping[str, Sequence[Weighted]], exact: bool) -> list[str]:
    """What cannot be added: one sentence for each cause."""
    by_base: dict[str, list[str]] = {}
    by_rank: dict[str, list[str]] = {}
    for name, parts in gathered.items():
        layers = [part.layer for part in parts]
        for layer in layers:
            if layer.kind != "bias" and not is_its_own(layer):
                by_base.setdefault(layer.words, []).append(name)
        kinds = {layer.kind for layer in layers} - {"bias"}
        if exact and kinds - {"lora"} and kinds not in ({"full"}, {"norm"}):
            words = next(layer.words for layer in layers if layer.kind not in ("lora", "bias"))
            by_rank.setdefault(words, []).append(name)
    problems = [
        f"{_some(names)}: what a {words} changes depends on the base model, so it cannot be added to others; "
        "merge it into a base model (--base), then take a LoRA of the result with extract_lora"
        for words, names in by_base.items()
    ]
    problems += [
        f"{_some(names)}: a {words} cannot be put beside others as it is; give --rank to make a LoRA of the sum"
        for words, names in by_rank.items()
    ]
    return problems


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _on(layer: FileLayer, device: torch.device) -> FileLayer:
    return FileLayer(layer.kind, {ending: tensor.to(device) for ending, tensor in layer.tensors.items()})


def _added_bias(parts: Sequence[Weighted]) -> dict[str, Tensor]:
    changes = [(bias_change(part.layer), part.ratio) for part in parts]
    found = [change.float() * ratio for change, ratio in changes if change is not None]
    return {BIAS: torch.stack(found).sum(0)} if found else {}


def _renamed_bias(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"b_norm": tensors[BIAS]} if tensors else {}


def _sum(parts: Sequence[Weighted]) -> Tensor:
    """The changes of all, one after the other, in the shape of the first one."""
    changes = [(own_change(part.layer), part.ratio) for part in parts if part.layer.kind != "bias"]
    shape = max((change.shape for change, _ in changes), key=len)
    return torch.stack([change.reshape(shape) * ratio for change, ratio in changes]).sum(0)


def _low_rank(
    name: str, parts: Sequence[Weighted], ranks: tuple[RankRule, RankRule] | None, kernel: tuple[int, ...]
) -> tuple[dict[str, Tensor], LayerReport]:
    """The tensors of a LoRA, and what was lost. The kernel is for files that do not tell it (LoHa)."""
    _check_sizes(name, parts)
    if any(part.layer.kind != "lora" for part in parts):
        change = _sum(parts)
        kernel = tuple(change.shape[2:]) or kernel
        whole = decompose(change.flatten(1))
        return _cut(name, None, whole, kernel, _rule(ranks or _ALL, kernel))
    loras = [Weighted(without_tucker(part.layer), part.ratio) for part in parts]
    kernel = max((part.layer.kernel for part in loras), key=len)
    up, down = _side_by_side(loras)
    if ranks is None:
        report = LayerReport(name, loras[0].layer.rank, up.shape[1], 0.0)
        return lora_tensors(up, down, float(up.shape[1]), kernel), report
    return _cut(name, up.shape[1], decompose_product(up, down), kernel, _rule(ranks, kernel))


_ALL = (RankRule(1 << 30), RankRule(1 << 30))


def _rule(ranks: tuple[RankRule, RankRule], kernel: tuple[int, ...]) -> RankRule:
    return ranks[1] if any(side > 1 for side in kernel) else ranks[0]


def _cut(
    name: str, before: int | None, whole: Decomposed, kernel: tuple[int, ...], rule: RankRule
) -> tuple[dict[str, Tensor], LayerReport]:
    rank = kept_rank(whole.values, rule)
    largest, smallest = float(whole.values[0]), float(whole.values[rank - 1])
    report = LayerReport(name, before, rank, lost_share(whole.values, rank), largest, smallest)
    return lora_tensors(*factors(whole, rank), float(rank), kernel), report


def _check_sizes(name: str, parts: Sequence[Weighted]) -> None:
    sizes = {own_size(part.layer) for part in parts}
    if len(sizes) > 1:
        one, two = sorted(sizes)[:2]
        raise Refusal(
            f"{name}: one file is for a layer from {one[1]} to {one[0]} numbers, another from {two[1]} to {two[0]}; "
            "merge files of the same family"
        )


def own_size(layer: FileLayer) -> tuple[int, int]:
    """(out, in times kernel) of the layer that is changed."""
    if layer.kind == "lora":
        plain = without_tucker(layer).tensors
        return plain[UP].shape[0], plain[DOWN][0].numel()
    change = own_change(layer)
    return change.shape[0], change[0].numel()


def _side_by_side(parts: Sequence[Weighted]) -> tuple[Tensor, Tensor]:
    """up (out, all ranks) and down (all ranks, in) of the sum; the strengths go half into each factor."""
    ups, downs = [], []
    for part in parts:
        strength = part.ratio * part.layer.scale
        root = abs(strength) ** 0.5
        ups.append(part.layer.tensors[UP].float().flatten(1) * (root if strength >= 0 else -root))
        downs.append(part.layer.tensors[DOWN].float().flatten(1) * root)
    return torch.cat(ups, 1), torch.cat(downs)


def lora_tensors(up: Tensor, down: Tensor, alpha: float, kernel: tuple[int, ...]) -> dict[str, Tensor]:
    """A layer's tensors for a file: a linear layer's for an empty kernel, else a convolution's."""
    rank = down.shape[0]
    if kernel:
        up = up.reshape(-1, rank, *(1 for _ in kernel))
        down = down.reshape(rank, -1, *kernel)
    return {UP: up, DOWN: down, ALPHA: torch.tensor(alpha)}
