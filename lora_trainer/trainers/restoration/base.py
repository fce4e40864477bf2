"""The base model of a restoration on its device, for whoever trains a LoRA in it or restores with one."""

from __future__ import annotations

import logging

import torch

from lora_trainer.engine.precision import Precision
from lora_trainer.models.base_model import BaseModel, load_base_model
from lora_trainer.models.checkpoint import Checkpoint
from lora_trainer.models.restoration.stand_in import stand_in_base
from lora_trainer.trainers.diffusion.base import place_vae

log = logging.getLogger(__name__)


def restoration_base(checkpoint: Checkpoint | None, precision: Precision, device: torch.device) -> BaseModel:
    """The base model, or the stand-in without one. The text encoder is placed by whoever encodes."""
    if checkpoint is None:
        base = stand_in_base(precision.dtype)
    else:
        log.info("loading %s", checkpoint.path)
        base = load_base_model(checkpoint, dtype=precision.dtype)
    base.unet.to(device)
    place_vae(base.vae, precision.dtype, device)
    return base
