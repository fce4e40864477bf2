"""HYPIR's YAML file, upstream's or one of its guide, as a preset of the restoration trainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lora_trainer.config.restoration import RestorationPreset
from lora_trainer.config.restoration_sections import unfold_restoration
from lora_trainer.config.setting import keys_of
from tools.presets.conversion import Converted, carry_over, entries_of

TOLD_BY = ("base_model_path", "model_t")


def is_hypir(content: Mapping[str, Any]) -> bool:
    return set(TOLD_BY) <= content.keys()


def convert_hypir(source: Path, content: Mapping[str, Any]) -> Converted:
    """The run is named after the file, as in HYPIR. Raises Refusal for a data set of a class that is not HYPIR's."""
    flat = unfold_restoration(entries_of(content, source))
    name = source.stem
    named = {"trainer": "restoration", "output_dir": f"output/{name}", "output_name": name}
    converted = carry_over(flat, keys_of(RestorationPreset), {})
    converted.preset = named | converted.preset
    converted.notes += _other_ways(converted.preset)
    return converted


def _other_ways(preset: Mapping[str, Any]) -> Iterator[str]:
    """What the same value does in another way here."""
    if preset.get("crop_type") == "none":
        yield "crop_type: none squashes pictures into squares in HYPIR; here the square in the middle of each is seen"
    if preset.get("lambda_ssim"):
        yield "lambda_ssim: HYPIR computes this loss without a gradient, so that it does nothing there; here it counts"
