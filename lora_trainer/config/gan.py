"""The preset of the GAN trainer: the options of stylegan3's train.py, and what follows from them."""

from __future__ import annotations

import math

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from lora_trainer.config.common import CommonPreset
from lora_trainer.config.gan_data import Augmentation, Images
from lora_trainer.config.gan_network import Networks, Start
from lora_trainer.config.gan_recipes import RECIPES, Recipe
from lora_trainer.config.gan_saving import METRICS, USUAL_METRICS, Checkpoints, Metrics, Run, Saving
from lora_trainer.config.gan_training import Batches, Length, Penalties, Precision, Rates

ADA_KIMG, TRANSFER_ADA_KIMG = 500.0, 100.0
EMA_KIMG_PER_IMAGE = 10 / 32  # of a step
EMA_RAMPUP = 0.05
CLAMP = 256.0


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", validate_default=False))
class GanPreset(
    Networks, Images, Batches, Penalties, Augmentation, Start, Length, Rates, Precision, Saving, Checkpoints, Metrics,
    Run, CommonPreset,
):  # fmt: skip
    """A checked GAN preset. What a key means stands beside its field, in the class of its subject."""

    @property
    def recipe(self) -> Recipe:
        return RECIPES[self.cfg]

    @property
    def number_format(self) -> str:
        """mixed_precision, by whichever words it is asked for."""
        return "no" if self.fp32 else self.mixed_precision

    @property
    def clamp(self) -> float | None:
        """The bound on activations; there is none where everything is in 32 bits by fp32."""
        return None if self.fp32 else CLAMP

    @property
    def total_images(self) -> int:
        return round(self.kimg * 1000)

    @property
    def total_steps(self) -> int:
        return math.ceil(self.total_images / self.batch)

    @property
    def steps_per_tick(self) -> int:
        return max(1, math.ceil(self.tick * 1000 / self.batch))

    @property
    def steps_per_snapshot(self) -> int:
        """0 is only at the end."""
        return self.steps_per_tick * self.snap

    def images_per_pass(self, world: int) -> int:
        """In each of `world` processes; batch_gpu is a limit."""
        share = self.batch // world
        return min(self.batch_gpu or share, share)

    def passes(self, world: int) -> int:
        """Forward passes of a step in each process."""
        return self.batch // (world * self.images_per_pass(world))

    @property
    def generator_rates(self) -> tuple[float, float]:
        """At the first step and after decay_kimg; lazy regularisation is not yet accounted for."""
        rate = self.glr or self.recipe.generator_rate
        return rate, rate * self.recipe.last_rate_share

    @property
    def discriminator_rates(self) -> tuple[float, float]:
        rate = self.dlr or self.recipe.discriminator_rate
        return rate, rate * self.recipe.last_rate_share

    @property
    def gammas(self) -> tuple[float, float]:
        """At the first step and after decay_kimg. Raises TypeError where gamma is not given."""
        return float(self.gamma), float(self.gamma) * self.recipe.last_gamma_share

    @property
    def beta2s(self) -> tuple[float, float]:
        return self.recipe.first_beta2, self.recipe.last_beta2

    @property
    def ema_kimgs(self) -> tuple[float, float]:
        """The half-life of the averaged generator, at the first step and after decay_kimg."""
        first = self.recipe.first_ema_kimg
        last = self.ema_kimg or self.recipe.last_ema_kimg or self.batch * EMA_KIMG_PER_IMAGE
        return last if first is None else first, last

    @property
    def ema_rampup(self) -> float | None:
        """The half-life is at most this share of the images seen; None: no bound."""
        return None if self.resume or self.recipe.first_ema_kimg is not None else EMA_RAMPUP

    @property
    def path_length_weight(self) -> float:
        """0 is none."""
        if not self.recipe.path_length_weight:
            return 0.0
        return self.recipe.path_length_weight if self.pl_weight is None else float(self.pl_weight)

    @property
    def blurs(self) -> bool:
        """Whether the discriminator sees blurred images at first."""
        return self.recipe.blurs and not self.resume

    @property
    def ada_kimg(self) -> float:
        """The kimg in which ada could raise p from 0 to 1."""
        return TRANSFER_ADA_KIMG if self.resume else ADA_KIMG

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics of a snapshot."""
        if self.metrics is None:
            return USUAL_METRICS if self.inception else ()
        return tuple(self.metrics)

    @property
    def metric_networks(self) -> tuple[str, ...]:
        """Which of the keys inception and vgg the metrics need."""
        needed = {METRICS[name] for name in self.measured}
        return tuple(key for key in ("inception", "vgg") if key in needed)
