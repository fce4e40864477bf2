"""What a LoRA preset's names and options mean to those who read them: optimizer, schedule, layers and blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.reader import Loaded
from lora_trainer.engine.optimizers import optimizer_problems
from lora_trainer.engine.schedules import schedule_problems
from lora_trainer.errors import Refusal
from lora_trainer.models.base_configs import Kind
from lora_trainer.models.unet_blocks import block_numbers, rate_factors
from lora_trainer.trainers.lora.chosen_layers import chosen_layers
from lora_trainer.trainers.lora.schedule import curve_problems, lora_schedule

BLOCK_NUMBERS = {"block_dims": True, "block_alphas": False, "conv_block_dims": True, "conv_block_alphas": False}


def lora_problems(loaded: Loaded) -> list[str]:
    """Every wrong name, option or number, each with its place in the file."""
    preset = loaded.preset
    assert isinstance(preset, LoraPreset)
    kind: Kind = "sdxl" if preset.sdxl else "sd21" if preset.v2 else "sd15"
    found = [*_optimization_problems(preset), *_block_problems(preset, kind), *_layer_problems(preset)]
    return [loaded.wrong(problem, key) for key, problem in found]


def _optimization_problems(preset: LoraPreset) -> Iterator[tuple[str, str]]:
    for problem in optimizer_problems(preset.optimizer, preset.optimizer_options):
        yield "optimizer_args" if "does not accept" in problem else "optimizer", problem
    if preset.lr_scheduler_type:
        for problem in schedule_problems(preset.lr_scheduler_type, preset.lr_scheduler_options):
            yield "lr_scheduler_args" if "does not accept" in problem else "lr_scheduler_type", problem
        return
    unread = curve_problems(preset)
    yield from (("lr_scheduler_args", problem) for problem in unread)
    if not unread:
        try:
            lora_schedule(preset, 1000)(999)
        except (TypeError, ValueError) as error:
            yield "lr_scheduler_args", f'the schedule "{preset.lr_scheduler}" cannot read it: {error}'


def _block_problems(preset: LoraPreset, kind: Kind) -> Iterator[tuple[str, str]]:
    for key, whole in BLOCK_NUMBERS.items():
        try:
            block_numbers(key, getattr(preset, key), kind, whole=whole)
        except Refusal as refusal:
            yield key, _without_key(refusal)
    for key in ("down_lr_weight", "mid_lr_weight", "up_lr_weight"):
        try:
            rate_factors(kind, {key.removesuffix("_lr_weight"): getattr(preset, key)}, 0.0)  # type: ignore[dict-item]
        except Refusal as refusal:
            yield key, _without_key(refusal)


def _layer_problems(preset: LoraPreset) -> Iterator[tuple[str, str]]:
    if preset.network_weights and not Path(preset.network_weights).is_file():
        yield "network_weights", f'{preset.network_weights}: there is no such file; correct the path, or write ""'
    if preset.LoRA_type.startswith("LyCORIS/"):
        try:
            chosen_layers(preset.LyCORIS_preset)
        except Refusal as refusal:
            yield "LyCORIS_preset", _without_key(refusal)


def _without_key(refusal: Refusal) -> str:
    """The key stands before the sentence again when its place is added."""
    return refusal.problems[0].partition(": ")[2]
