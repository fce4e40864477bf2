"""What a LoRA preset's names and options mean to those who read them: optimizer, schedule, layers and blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.reader import Loaded
from lora_trainer.errors import Refusal
from lora_trainer.models.base_configs import Kind
from lora_trainer.models.unet_blocks import block_numbers, rate_factors
from lora_trainer.trainers.lora.network import chosen_layers
from lora_trainer.trainers.lora.optimization import optimization_problems

BLOCK_NUMBERS = {"block_dims": True, "block_alphas": False, "conv_block_dims": True, "conv_block_alphas": False}


def lora_problems(loaded: Loaded) -> list[str]:
    """Every wrong name, option or number, each with its place in the file."""
    preset = loaded.preset
    assert isinstance(preset, LoraPreset)
    kind: Kind = "sdxl" if preset.sdxl else "sd21" if preset.v2 else "sd15"
    found = [*optimization_problems(preset), *_block_problems(preset, kind), *_layer_problems(preset)]
    return [loaded.wrong(problem, key) for key, problem in found]


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
