"""The table of trainers: for each its preset class and what is checked across its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from lora_trainer.config.common import CommonPreset
from lora_trainer.config.entries import Entry
from lora_trainer.config.findings import Rule
from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.config.finetune_rules import FINETUNE_RULES
from lora_trainer.config.finetune_sections import unfold_everydream
from lora_trainer.config.gan import GanPreset
from lora_trainer.config.gan_rules import GAN_RULES
from lora_trainer.config.gan_sections import unfold_gan
from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.lora_rules import LORA_RULES
from lora_trainer.config.restoration import RestorationPreset
from lora_trainer.config.restoration_rules import RESTORATION_RULES
from lora_trainer.config.restoration_sections import unfold_restoration
from lora_trainer.config.super_resolution import SuperResolutionPreset
from lora_trainer.config.super_resolution_rules import SUPER_RESOLUTION_RULES
from lora_trainer.config.super_resolution_sections import unfold_sections
from lora_trainer.errors import Refusal, did_you_mean


@dataclass(frozen=True)
class Trainer:
    """`with_gui_keys`: the preset may hold the kohya_ss GUI's keys for models that no trainer here trains.

    `unfold` makes flat keys of another program's sections. `starts_from` is the key that takes the result of the stage
    before in a preset with stages, which is a file, or with `leaves_a_folder` the run's folder. `told_by` are keys that
    say which trainer a preset without `trainer` is for.
    """

    preset: type[CommonPreset]
    rules: Sequence[Rule]
    with_gui_keys: bool = False
    unfold: Callable[[Mapping[str, Entry]], dict[str, Entry]] = dict
    starts_from: str = ""
    leaves_a_folder: bool = False
    told_by: tuple[str, ...] = ()


DEFAULT_TRAINER = "lora"  # a kohya_ss GUI preset does not say what it is for

TRAINERS = MappingProxyType(
    {
        "lora": Trainer(LoraPreset, LORA_RULES, with_gui_keys=True),
        "finetune": Trainer(
            FinetunePreset,
            FINETUNE_RULES,
            unfold=unfold_everydream,
            starts_from="resume_ckpt",
            leaves_a_folder=True,
            told_by=("resume_ckpt", "data_root"),
        ),
        "super_resolution": Trainer(
            SuperResolutionPreset,
            SUPER_RESOLUTION_RULES,
            unfold=unfold_sections,
            starts_from="pretrain_network_g",
        ),
        "gan": Trainer(GanPreset, GAN_RULES, unfold=unfold_gan),
        "restoration": Trainer(
            RestorationPreset,
            RESTORATION_RULES,
            unfold=unfold_restoration,
            starts_from="weight_path",
            told_by=("base_model_path", "model_t"),
        ),
    }
)


def trainer_named(name: str) -> Trainer:
    """The row of the table. Raises Refusal with the names there are."""
    if name not in TRAINERS:
        raise Refusal(f"there is no trainer {name}; there is {', '.join(TRAINERS)}{did_you_mean(name, TRAINERS)}")
    return TRAINERS[name]
