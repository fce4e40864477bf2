"""The table of trainers: for each its preset class and what is checked across its keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from lora_trainer.config.common import CommonPreset
from lora_trainer.config.findings import Rule
from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.lora_rules import LORA_RULES
from lora_trainer.config.problems import did_you_mean
from lora_trainer.errors import Refusal


@dataclass(frozen=True)
class Trainer:
    """`with_gui_keys`: the preset may hold the kohya_ss GUI's keys for models that no trainer here trains."""

    preset: type[CommonPreset]
    rules: Sequence[Rule]
    with_gui_keys: bool = False


DEFAULT_TRAINER = "lora"  # a kohya_ss GUI preset does not say what it is for

TRAINERS = MappingProxyType(
    {
        "lora": Trainer(LoraPreset, LORA_RULES, with_gui_keys=True),
    }
)


def trainer_named(name: str) -> Trainer:
    """The row of the table. Raises Refusal with the names there are."""
    if name not in TRAINERS:
        raise Refusal(f"there is no trainer {name}; there is {', '.join(TRAINERS)}{did_you_mean(name, TRAINERS)}")
    return TRAINERS[name]
