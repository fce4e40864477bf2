"""The preset of the super-resolution trainer: traiNNer-redux's keys, and what follows from them."""

from __future__ import annotations

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from lora_trainer.config.common import CommonPreset
from lora_trainer.config.kinds import Component
from lora_trainer.config.super_resolution_data import Crops, Mixing, Pictures, ValidationPictures
from lora_trainer.config.super_resolution_degradation import (
    Degradation,
    FirstDegradation,
    LastDegradation,
    SecondDegradation,
)  # fmt: skip
from lora_trainer.config.super_resolution_networks import Networks, Performance, Pretrains
from lora_trainer.config.super_resolution_saving import Saving, Validation
from lora_trainer.config.super_resolution_training import Adversary, Launch, MovingAverage, Training

GAN_LOSS = "ganloss"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", validate_default=False))
class SuperResolutionPreset(
    Networks, Pretrains, Pictures, Crops, Mixing, Degradation, FirstDegradation, SecondDegradation, LastDegradation,
    Training, MovingAverage, Adversary, ValidationPictures, Validation, Saving, Performance, CommonPreset, Launch,
):  # fmt: skip
    """A checked super-resolution preset. What a key means stands beside its field, in the class of its subject."""

    @property
    def lq_px(self) -> int:
        """The side of a low-resolution crop."""
        return self.gt_size // self.scale if self.gt_size else self.lq_size

    @property
    def gt_px(self) -> int:
        return self.lq_px * self.scale

    @property
    def active_losses(self) -> tuple[Component, ...]:
        """The losses that are not switched off by a weight of 0."""
        return tuple(loss for loss in self.losses if loss.options.get("loss_weight", 1.0) != 0)

    @property
    def gan_loss(self) -> Component | None:
        found = [loss for loss in self.active_losses if loss.type.casefold() == GAN_LOSS]
        return found[0] if found else None

    @property
    def pixel_losses(self) -> tuple[Component, ...]:
        """All active losses but the discriminator's."""
        return tuple(loss for loss in self.active_losses if loss.type.casefold() != GAN_LOSS)

    @property
    def number_format(self) -> str:
        """mixed_precision, by whichever words it is asked for."""
        if self.mixed_precision != "no" or not self.use_amp:
            return self.mixed_precision
        return "bf16" if self.amp_bf16 else "fp16"

    @property
    def validates(self) -> bool:
        return self.val_enabled and bool(self.val_dataroot_gt)
