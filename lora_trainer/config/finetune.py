"""The preset of the finetune trainer: EveryDream2's keys, and what follows from them."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from lora_trainer.config.arguments import parse_arguments
from lora_trainer.config.common import CommonPreset
from lora_trainer.config.finetune_data import Captions, Data, FromFiles
from lora_trainer.config.finetune_loss import MovingAverage, NoiseAndLoss
from lora_trainer.config.finetune_model import Logging, Model, Performance, Precision, Run, WithoutEffect
from lora_trainer.config.finetune_optimization import LearningRate, Optimizer, TextEncoderTraining
from lora_trainer.config.finetune_saving import Samples, Saving, Validation
from lora_trainer.config.finetune_vae import VaeTraining

UNET_RATE, TEXT_ENCODER_RATE, VAE_RATE = 1e-6, 5e-7, 1e-5
ADAPTIVE_RATE = 1.0
RATE_EXPONENT = 0.55  # of scale_lr
SAME = "same"  # as for the UNet
FIND_LAST = "findlast"
MINUTES_BETWEEN_MODELS = 20.0
ATTENTION: dict[str, Literal["sdpa", "xformers"]] = {"sdp": "sdpa", "slice": "sdpa", "xformers": "xformers"}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", validate_default=False))
class FinetunePreset(
    Model, Data, Captions, LearningRate, Optimizer, TextEncoderTraining, NoiseAndLoss, MovingAverage, VaeTraining,
    Precision, Performance, Saving, Samples, Validation, FromFiles, Run, Logging, CommonPreset, WithoutEffect,
):  # fmt: skip
    """A checked finetune preset. What a key means stands beside its field, in the class of its subject."""

    @property
    def finds_last(self) -> bool:
        """Whether the base model is the newest one in logdir."""
        return self.resume_ckpt.strip().casefold() == FIND_LAST

    @property
    def number_format(self) -> str:
        """mixed_precision, by whichever words it is asked for; a VAE is trained in bf16 instead of fp16."""
        if self.disable_amp:
            return "no"
        return "bf16" if self.train_vae and self.mixed_precision == "fp16" else self.mixed_precision

    @property
    def attention(self) -> Literal["sdpa", "xformers"]:
        """The kernel under the name that the other trainers use."""
        return ATTENTION[self.attn_type]

    @property
    def caches_latents(self) -> bool:
        return self.cache_latents or self.cache_latents_to_disk

    @property
    def trains_unet(self) -> bool:
        return not (self.disable_unet_training or self.train_vae)

    @property
    def trains_text_encoder(self) -> bool:
        return not (self.disable_textenc_training or self.train_vae)

    @property
    def averages(self) -> bool:
        """Whether there is a second, averaged model."""
        return bool(self.ema_decay_rate or self.ema_strength_target)

    def ema_decay(self, total_steps: int) -> float:
        """The share of the average that stays at an update."""
        if not self.ema_strength_target:
            return self.ema_decay_rate
        return float(self.ema_strength_target ** (self.ema_update_interval / total_steps))

    @property
    def ema_place(self) -> str | None:
        """The device of the average; None is that of the weights."""
        return "cpu" if self.ema_device == "cpu" else None

    @property
    def validates(self) -> bool:
        """Whether pictures are measured."""
        return self.validate_training and (
            self.val_split_mode != "none" or bool(self.extra_manual_datasets) or self.stabilize_training_loss
        )

    @property
    def minutes_between_models(self) -> float:
        """0 is never."""
        if self.ckpt_every_n_minutes is None:
            return 0.0 if self.save_every_n_epochs else MINUTES_BETWEEN_MODELS
        return float(self.ckpt_every_n_minutes) if self.ckpt_every_n_minutes >= 1 else 0.0

    @property
    def text_encoder_optimizer_name(self) -> str:
        return self.optimizer if self.text_encoder_optimizer == SAME else self.text_encoder_optimizer

    @property
    def text_encoder_scheduler(self) -> str:
        return self.lr_scheduler if self.text_encoder_lr_scheduler == SAME else self.text_encoder_lr_scheduler

    @property
    def optimizers(self) -> dict[str, str]:
        """The optimizers that are used, by the key that names them."""
        found: dict[str, str] = {"optimizer": self.optimizer} if self.trains_unet else {}
        if self.trains_text_encoder:
            key = "optimizer" if self.text_encoder_optimizer == SAME else "text_encoder_optimizer"
            found[key] = self.text_encoder_optimizer_name
        return found

    @property
    def optimizer_options(self) -> dict[str, object]:
        """The values of optimizer_args by name."""
        return parse_arguments(self.optimizer_args)

    @property
    def text_encoder_optimizer_options(self) -> dict[str, object]:
        """The text encoder's own over those of the UNet, unless it has another optimizer: that has others."""
        shared = self.optimizer_options if self.text_encoder_optimizer_name == self.optimizer else {}
        return {**shared, **parse_arguments(self.text_encoder_optimizer_args)}

    def unet_rate(self, pictures_per_step: int) -> float | None:
        """The highest learning rate of the UNet, 1.0 under an adaptive optimizer; None where it is not trained."""
        return self._main_rate(UNET_RATE, pictures_per_step) if self.trains_unet else None

    def vae_rate(self, pictures_per_step: int) -> float:
        """The same of the VAE, where it is what is trained."""
        return self._main_rate(VAE_RATE, pictures_per_step)

    def text_encoder_rate(self, pictures_per_step: int) -> float | None:
        """The same of the text encoder."""
        if not self.trains_text_encoder:
            return None
        if finds_its_own_rate(self.text_encoder_optimizer_name, self.text_encoder_optimizer_options):
            return ADAPTIVE_RATE
        rate = self.text_encoder_lr or (self.lr or TEXT_ENCODER_RATE) * self.text_encoder_lr_scale
        return rate * self._rate_factor(pictures_per_step)

    def _main_rate(self, usual: float, pictures_per_step: int) -> float:
        if finds_its_own_rate(self.optimizer, self.optimizer_options):
            return ADAPTIVE_RATE
        return (self.lr or usual) * self._rate_factor(pictures_per_step)

    def _rate_factor(self, pictures_per_step: int) -> float:
        return float(pictures_per_step**RATE_EXPONENT) if self.scale_lr else 1.0


def finds_its_own_rate(optimizer: str, options: dict[str, object]) -> bool:
    """Whether an optimizer is adaptive: Prodigy, D-Adaptation, or Adafactor with its relative_step on."""
    name = optimizer.rpartition(".")[2]
    if name == "Adafactor":
        return bool(options.get("relative_step", True))
    return estimates_one_rate(optimizer)


def estimates_one_rate(optimizer: str) -> bool:
    """Whether it estimates the rate from all weights together."""
    name = optimizer.rpartition(".")[2]
    return name == "Prodigy" or name.startswith("DAdapt")
