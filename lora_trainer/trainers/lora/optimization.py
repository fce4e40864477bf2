"""How the layers of a LoRA are trained: groups of weights with their rates, the optimizer, the rate over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lora_trainer.config.lora import LoraPreset
from lora_trainer.engine.optimizers import Group, make_optimizer, optimizer_problems
from lora_trainer.engine.schedules import Curve, Schedule, make_schedule, schedule_problems, torch_schedule
from lora_trainer.errors import Refusal, did_you_mean
from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.unet_blocks import block_of
from lora_trainer.trainers.lora.network import LoraNetwork, Names, Rates

UNET, TEXT = "unet.", "text_encoders."  # what the weights' names begin with

# lr_scheduler_args for the named schedules: the word, the curve's field, and the schedules that read it
CURVE_OPTIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "num_cycles": ("num_cycles", ("cosine_with_restarts", "cosine_with_min_lr", "warmup_stable_decay")),
    "power": ("power", ("polynomial",)),
    "min_lr_rate": ("min_ratio", ("cosine_with_min_lr",)),
    "min_lr_ratio": ("min_ratio", ("warmup_stable_decay",)),
    "min_lr": ("min_lr", ("cosine_with_min_lr",)),
    "timescale": ("timescale", ("inverse_sqrt",)),
    "num_decay_steps": ("decay_steps", ("warmup_stable_decay",)),
    "step_rules": ("step_rules", ("piecewise_constant",)),
}


def lora_groups(preset: LoraPreset, base: BaseModel, names: Names, model: nn.Module, total_steps: int) -> list[Group]:
    """The weights of `model` (a DiffusionModel) that are trained."""
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    groups = []
    if preset.unet_rate is not None:
        factors = LoraNetwork(preset, base).rate_factors("unet")
        blocks = block_of(base.kind, list(names.get("unet", ())), base.unet.config)
        by_path = {path: factors[block] for path, block in blocks.items()}
        ratio = preset.loraplus_unet_lr_ratio or preset.loraplus_lr_ratio
        rates = Rates("unet", preset.unet_rate, ratio, by_path)
        groups += rates.groups({name: w for name, w in trained.items() if name.startswith(UNET)}, UNET)
    if preset.text_encoder_rate is not None:
        ratio = preset.loraplus_text_encoder_lr_ratio or preset.loraplus_lr_ratio
        rest = stop_text_encoder_at(preset, total_steps)
        rates = Rates("text_encoder", preset.text_encoder_rate, ratio, until=rest)
        groups += rates.groups({name: w for name, w in trained.items() if name.startswith(TEXT)}, TEXT)
    return groups


def stop_text_encoder_at(preset: LoraPreset, total_steps: int) -> int | None:
    """The first step in which the text encoders rest."""
    share = preset.stop_text_encoder_training_pct
    return int(total_steps * share / 100) if share > 0 else None


def lora_optimizer(preset: LoraPreset, groups: list[Group]) -> torch.optim.Optimizer:
    return make_optimizer(preset.optimizer, groups, preset.optimizer_options)


def warmup_steps(preset: LoraPreset, total_steps: int) -> int:
    """The steps in which the rate rises."""
    steps = preset.lr_warmup_steps
    if not steps:
        return int(total_steps * preset.lr_warmup / 100)
    return int(total_steps * steps) if steps < 1 else int(steps)


def lora_schedule(preset: LoraPreset, total_steps: int) -> Schedule:
    """The factor of every group's rate. Raises Refusal."""
    rate = preset.unet_rate or preset.text_encoder_rate or 1.0
    warmup = warmup_steps(preset, total_steps)
    options = preset.lr_scheduler_options
    if preset.lr_scheduler_type:
        return torch_schedule(preset.lr_scheduler_type, options, rate, total_steps, warmup)
    if problems := _curve_problems(preset):
        raise Refusal(*problems)
    given: dict[str, Any] = {CURVE_OPTIONS[name][0]: value for name, value in options.items()}
    if "min_lr" in given:
        given["min_ratio"] = float(given.pop("min_lr")) / rate
    decay = preset.lr_decay_steps
    plain: dict[str, Any] = {
        "num_cycles": preset.lr_scheduler_num_cycles,
        "power": preset.lr_scheduler_power,
        "min_ratio": preset.lr_scheduler_min_lr_ratio,
        "timescale": preset.lr_scheduler_timescale,
        "decay_steps": int(total_steps * decay) if decay < 1 else int(decay),
    }
    return make_schedule(preset.lr_scheduler, Curve(total_steps, warmup, base_rate=rate, **{**plain, **given}))


def optimization_problems(preset: LoraPreset) -> list[tuple[str, str]]:
    """What is wrong with optimizer and schedule, each with the preset's key."""
    found = []
    for problem in optimizer_problems(preset.optimizer, preset.optimizer_options):
        found.append(("optimizer_args" if "does not accept" in problem else "optimizer", problem))
    if preset.lr_scheduler_type:
        for problem in schedule_problems(preset.lr_scheduler_type, preset.lr_scheduler_options):
            found.append(("lr_scheduler_args" if "does not accept" in problem else "lr_scheduler_type", problem))
        return found
    found += [("lr_scheduler_args", problem) for problem in _curve_problems(preset)]
    if not found:
        try:
            lora_schedule(preset, 1000)(999)
        except (TypeError, ValueError) as error:
            found.append(("lr_scheduler_args", f'the schedule "{preset.lr_scheduler}" cannot read it: {error}'))
    return found


def _curve_problems(preset: LoraPreset) -> list[str]:
    name = preset.lr_scheduler
    known = [word for word, (_, schedules) in CURVE_OPTIONS.items() if name in schedules]
    takes = f"it takes {', '.join(known)}" if known else "it takes no options"
    return [
        f'the schedule "{name}" does not accept {word}; {takes}{did_you_mean(word, known)}'
        for word in preset.lr_scheduler_options
        if word not in known
    ]
