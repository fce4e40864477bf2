"""How the layers of a LoRA are trained: groups of weights with their rates, and the optimizer."""

from __future__ import annotations

import torch
from torch import nn

from lora_trainer.config.lora import LoraPreset
from lora_trainer.engine.optimizers import Group, make_optimizer
from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.unet_blocks import block_of
from lora_trainer.trainers.lora.network import LoraNetwork, Names, Rates

UNET, TEXT = "unet.", "text_encoders."  # what the weights' names begin with


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
