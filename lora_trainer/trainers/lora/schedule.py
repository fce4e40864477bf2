"""The learning rate of a LoRA training over time, as the preset's words have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_trainer.config.lora import LoraPreset
from lora_trainer.engine.schedules import Curve, Schedule, make_schedule, torch_schedule
from lora_trainer.errors import Refusal, did_you_mean

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
    if problems := curve_problems(preset):
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


def curve_problems(preset: LoraPreset) -> list[str]:
    """Options that the named schedule does not read."""
    name = preset.lr_scheduler
    known = [word for word, (_, schedules) in CURVE_OPTIONS.items() if name in schedules]
    takes = f"it takes {', '.join(known)}" if known else "it takes no options"
    return [
        f'the schedule "{name}" does not accept {word}; {takes}{did_you_mean(word, known)}'
        for word in preset.lr_scheduler_options
        if word not in known
    ]
