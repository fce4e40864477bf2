"""How a model is fine-tuned: which weights, with which optimizers, at which rates over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import nn

from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.engine.everydream_schedules import RateCurve
from lora_trainer.engine.fused_step import optimizer_per_weight
from lora_trainer.engine.joined_optimizer import JoinedOptimizer
from lora_trainer.engine.optimizers import Group, make_optimizer
from lora_trainer.engine.schedules import Schedule
from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.text_encoder_weights import TextFreezing, trained_text_weights
from lora_trainer.trainers.diffusion.model import DiffusionModel
from lora_trainer.trainers.finetune.schedule import FinetuneRates

UNET, TEXT = "unet", "text_encoder"  # the groups' names in the log


def trained_weights(preset: FinetunePreset, base: BaseModel, model: DiffusionModel) -> dict[str, nn.Parameter]:
    """Those of the model that are trained, by their names in it; they alone require gradients afterwards."""
    chosen: set[nn.Parameter] = set(base.unet.parameters()) if preset.trains_unet else set()
    if preset.trains_text_encoder:
        freezing = TextFreezing(preset.unfreeze_last_n_layers, preset.freeze_embeddings, preset.freeze_final_layer_norm)
        for index, encoder in enumerate(base.text_encoders):
            chosen |= set(trained_text_weights(encoder, base.kind, index, model.clip_skip, freezing).values())
    model.requires_grad_(False)
    found = {name: weight for name, weight in model.named_parameters() if weight in chosen}
    for weight in found.values():
        weight.requires_grad_(True)
    return found


def finetune_groups(rates: FinetuneRates, weights: Mapping[str, nn.Parameter]) -> dict[str, Group]:
    """The trained weights by what they belong to, with the highest rate of each."""
    groups = {}
    for name, prefix, curve in ((UNET, "unet.", rates.unet), (TEXT, "text_encoders.", rates.text_encoder)):
        own = {path: weight for path, weight in weights.items() if path.startswith(prefix)}
        if curve is not None and own:
            groups[name] = Group(name, curve.rate, own)
    return groups


def finetune_optimizer(preset: FinetunePreset, groups: Mapping[str, Group]) -> torch.optim.Optimizer:
    """One optimizer, or two joined where the text encoder has its own; one a weight where each is stepped by itself.
    Raises Refusal."""
    alone = preset.fused_backward_pass or preset.full_bf16
    make = optimizer_per_weight if alone else make_optimizer
    parts = [
        make(name, chosen, options, key)
        for name, chosen, options, key in _optimizers(preset, groups)
    ]  # fmt: skip
    return parts[0] if len(parts) == 1 else JoinedOptimizer(parts)


def _optimizers(
    preset: FinetunePreset, groups: Mapping[str, Group]
) -> Iterator[tuple[str, list[Group], dict[str, object], str]]:
    """Name, groups, options and the options' key of each."""
    own_name, own_options = preset.text_encoder_optimizer_name, preset.text_encoder_optimizer_options
    shared = (own_name, own_options) == (preset.optimizer, preset.optimizer_options)
    if shared:
        yield preset.optimizer, list(groups.values()), preset.optimizer_options, "optimizer_args"
        return
    if UNET in groups:
        yield preset.optimizer, [groups[UNET]], preset.optimizer_options, "optimizer_args"
    if TEXT in groups:
        yield own_name, [groups[TEXT]], own_options, "text_encoder_optimizer_args"


def schedules_of(rates: FinetuneRates) -> dict[str, Schedule]:
    """The factor on each group's rate over the optimizer steps."""
    curves = {UNET: rates.unet, TEXT: rates.text_encoder}
    return {name: partial(curve.schedule) for name, curve in curves.items() if curve is not None}


def spoken_rates(preset: FinetunePreset, rates: FinetuneRates, pictures_per_step: int) -> Iterator[str]:
    """A sentence for each part: which optimizer, which rate, and where it comes from."""
    curves = (
        ("UNet", rates.unet, preset.optimizer, "lr", preset.lr),
        ("text encoder", rates.text_encoder, preset.text_encoder_optimizer_name, *_text_rate_source(preset)),
    )
    for name, curve, optimizer, key, written in curves:
        said = spoken_rate(curve, optimizer, key, written, pictures_per_step if preset.scale_lr else 0)
        yield f"{name}: {said}"


def spoken_rate(curve: RateCurve | None, optimizer: str, key: str, written: float, scaled_by: int) -> str:
    """``written`` is what the key says, 0 for nothing; the rate may be scaled by so many pictures of a step."""
    if curve is None:
        return "not trained"
    source = f"{key} {written:g}" if written else "the usual one, as no key names another"
    if scaled_by and written != curve.rate:
        source += f", scaled by {scaled_by} ** 0.55"
    told = f"{optimizer}, learning rate {curve.rate:.3g} ({source}), {curve.name}"
    if curve.name == "constant":
        return told
    warmup = f", after {curve.warmup_steps} steps of warm-up" if curve.warmup_steps else ""
    return f"{told} over {curve.decay_steps} steps{warmup}"


def _text_rate_source(preset: FinetunePreset) -> tuple[str, float]:
    return ("text_encoder_lr", preset.text_encoder_lr) if preset.text_encoder_lr else ("lr", preset.lr)
