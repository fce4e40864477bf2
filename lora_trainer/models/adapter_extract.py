"""The LoRA that makes a tuned model out of its original, as near as its ranks allow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.models.adapter_file import FileLayer
from lora_trainer.models.adapter_merge import LayerReport, lora_tensors
from lora_trainer.models.adapter_names import Place, kohya_layers
from lora_trainer.models.base_weights import BaseWeights
from lora_trainer.models.checkpoint import KIND_WORDS
from lora_trainer.models.low_rank import RankRule, clamped_factors, decompose, kept_rank

_IN_TRANSFORMER = re.compile(r".*\.attentions\.\d+\..*")
_IN_CONVOLUTIONS = re.compile(r".*\.(resnets|downsamplers|upsamplers)\.\d+\..*")
_IN_TEXT = re.compile(r"encoder\.layers\.\d+\.(self_attn|mlp)\..*")


@dataclass(frozen=True)
class ExtractRules:
    """What to take: without `wide` the residual blocks are left out, as in a standard LoRA."""

    linear: RankRule
    wide: RankRule | None
    clamp_quantile: float
    least_difference: float  # a text encoder without any change of this size counts as untouched


@dataclass(frozen=True)
class Extracted:
    """A LoRA's layers by kohya name (float32), and what it lacks."""

    layers: dict[str, FileLayer]
    reports: list[LayerReport]
    untouched: tuple[str, ...]  # parts that are the same in both models


def extract_adapter(
    original: BaseWeights,
    tuned: BaseWeights,
    rules: ExtractRules,
    device: torch.device,
    follow: Callable[[list[str]], Iterable[str]] = iter,
) -> Extracted:
    """Compare the two layer by layer. `follow` gets the names in order and gives them back, to show progress.

    Raises Refusal for models of different families or sizes, and for two that are the same.
    """
    if original.kind != tuned.kind:
        raise Refusal(
            f"{original.path} is {KIND_WORDS[original.kind]} and {tuned.path} {KIND_WORDS[tuned.kind]}; "
            "give a model and the one that it was trained from"
        )
    names = _names(original, tuned, rules)
    parts = {place.part for place in names}
    untouched = tuple(sorted(part for part in parts if not _is_touched(original, tuned, part, names, rules)))
    wanted = {name: place for place, name in names.items() if place.part not in untouched}
    if not wanted:
        raise Refusal(
            f"{tuned.path}: no weight differs from {original.path} enough; "
            "give two models that differ, or a smaller --min-diff"
        )
    layers, reports = {}, []
    for name in follow(list(wanted)):
        layers[name], report = _extracted(name, _difference(original, tuned, wanted[name], device), rules)
        reports.append(report)
    return Extracted(layers, reports, untouched)


def _names(original: BaseWeights, tuned: BaseWeights, rules: ExtractRules) -> dict[Place, str]:
    """The layers that a LoRA has, in the order of the model."""
    known = kohya_layers(original.kind, original.unet_config)
    names: dict[Place, str] = {}
    problems = []
    for place, name in known.items():
        if place not in original.slots or "weight" not in original.slots[place] or not _is_target(place, rules):
            continue
        before = original.shape(place)
        if len(before) < 2:
            continue
        after = tuned.shape(place) if place in tuned.slots else ()
        if _without_kernel(before) != _without_kernel(after):
            problems.append(f"{tuned.path}: {name} is {_words(after)}, in {original.path} it is {_words(before)}")
        names[place] = name
    if problems:
        more = f" (and {len(problems) - 1} more layers)" if len(problems) > 1 else ""
        raise Refusal(f"{problems[0]}{more}; give a model and the one that it was trained from")
    return names


def _is_target(place: Place, rules: ExtractRules) -> bool:
    if place.part != "unet":
        return _IN_TEXT.fullmatch(place.path) is not None
    if _IN_TRANSFORMER.fullmatch(place.path):
        return True
    return rules.wide is not None and _IN_CONVOLUTIONS.fullmatch(place.path) is not None


def _without_kernel(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if shape[2:] == (1, 1) else shape


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) if shape else "not there"


def _is_touched(
    original: BaseWeights, tuned: BaseWeights, part: str, names: dict[Place, str], rules: ExtractRules
) -> bool:
    """Whether any number of this part has changed; in a text encoder, by more than another precision makes."""
    least = rules.least_difference if part != "unet" else 0.0
    places = (place for place in names if place.part == part)
    changes = (_difference(original, tuned, place, torch.device("cpu")).abs().max() for place in places)
    return any(float(change) > 0 and float(change) >= least for change in changes)


def _difference(original: BaseWeights, tuned: BaseWeights, place: Place, device: torch.device) -> Tensor:
    """tuned - original, float32, in the original's shape."""
    before, after = (base.read(place).to(device).float() for base in (original, tuned))
    return after.reshape(before.shape) - before


def _extracted(name: str, change: Tensor, rules: ExtractRules) -> tuple[FileLayer, LayerReport]:
    kernel = tuple(change.shape[2:])
    rule = rules.wide if rules.wide and any(side > 1 for side in kernel) else rules.linear
    flat = change.flatten(1)
    whole = decompose(flat)
    rank = kept_rank(whole.values, rule)
    up, down = clamped_factors(whole, rank, rules.clamp_quantile)
    length = float(flat.norm())
    lost = float((flat - up @ down).norm()) / length if length else 0.0  # with what the clamp takes away
    report = LayerReport(name, None, rank, lost, float(whole.values[0]), float(whole.values[rank - 1]))
    tensors = {ending: tensor.cpu() for ending, tensor in lora_tensors(up, down, float(rank), kernel).items()}
    return FileLayer("lora", tensors), report
