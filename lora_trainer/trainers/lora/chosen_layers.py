"""Which layers LyCORIS reaches, by the preset's word or file."""

from __future__ import annotations

from pathlib import Path

from lora_trainer.config.toml_file import read_toml
from lora_trainer.models.adapters.targets import LycorisPreset, lycoris_preset


def chosen_layers(name: str) -> LycorisPreset:
    """LyCORIS_preset: one of LyCORIS' own, or a TOML file. Raises Refusal."""
    is_file = name.lower().endswith(".toml")
    return lycoris_preset(name, read_toml(Path(name), "LyCORIS_preset") if is_file else None)
