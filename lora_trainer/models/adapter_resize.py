"""A LoRA with fewer ranks: each layer's change by its largest singular values."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lora_trainer.errors import Refusal
from lora_trainer.models.adapter_delta import without_tucker
from lora_trainer.models.adapter_file import AdapterFile, FileLayer
from lora_trainer.models.adapter_merge import LayerReport, lora_tensors
from lora_trainer.models.adapter_names import ALPHA, DOWN, UP
from lora_trainer.models.low_rank import RankRule, decompose_product, factors, kept_rank, lost_share


def resize_adapter(
    file: AdapterFile, linear: RankRule, wide: RankRule, device: torch.device
) -> tuple[dict[str, FileLayer], list[LayerReport]]:
    """The file's layers with as many ranks as the rules (for linear layers, for larger kernels) keep.

    alpha changes with the rank, so that alpha / rank stays. A layer that has no more ranks than a rule without a
    method asks for stays as it is, as do norms and biases. Raises Refusal for kinds without such ranks.
    """
    if strange := {layer.words: name for name, layer in file.layers.items() if layer.kind not in _LEFT}:
        raise Refusal(
            *(
                f"{file.path}: {name} is a {words}, and only LoRA has ranks to choose from; "
                "merge it with --rank (merge_lora), which makes a LoRA of it"
                for words, name in strange.items()
            )
        )
    if all(layer.kind != "lora" for layer in file.layers.values()):
        raise Refusal(f"{file.path}: there is no LoRA in this file, only norms or biases; give another one")
    layers: dict[str, FileLayer] = {}
    reports = []
    for name, layer in file.layers.items():
        if layer.kind != "lora":
            layers[name] = layer
            continue
        rule = wide if any(side > 1 for side in layer.kernel) else linear
        layers[name], report = _resized(name, layer, rule, device)
        reports.append(report)
    return layers, reports


_LEFT = ("lora", "norm", "bias")


def _resized(name: str, layer: FileLayer, rule: RankRule, device: torch.device) -> tuple[FileLayer, LayerReport]:
    before = layer.tensors[DOWN].shape[0]
    if not rule.method and before <= rule.most:
        return layer, LayerReport(name, before, before, 0.0)
    plain = without_tucker(layer)
    up, down = (plain.tensors[ending].to(device).float().flatten(1) for ending in (UP, DOWN))
    whole = decompose_product(up, down)
    rank = kept_rank(whole.values, rule)
    alpha = torch.tensor(layer.scale * rank)
    changed = {**lora_tensors(*factors(whole, rank), float(alpha), plain.kernel), ALPHA: alpha}
    dtype = layer.tensors[DOWN].dtype
    report = LayerReport(
        name, before, rank, lost_share(whole.values, rank), float(whole.values[0]), float(whole.values[rank - 1])
    )
    return FileLayer("lora", {**plain.tensors, **{end: t.to("cpu", dtype) for end, t in changed.items()}}), report


def rank_range(layers: Mapping[str, FileLayer]) -> str:
    """What is said of a file: 8, or 1..8."""
    ranks = {layer.rank for layer in layers.values() if layer.kind == "lora" and layer.rank}
    return f"{min(ranks)}" if len(ranks) == 1 else f"{min(ranks)}..{max(ranks)}"
