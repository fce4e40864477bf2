"""The preset of the restoration trainer: the keys of HYPIR's guide and ours, and what follows from them."""

from __future__ import annotations

import sys

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from lora_trainer.config.common import CommonPreset
from lora_trainer.config.restoration_data import Crops, Pictures, ValidationPictures
from lora_trainer.config.restoration_degradation import (
    Degradation,
    FirstDegradation,
    LastDegradation,
    SecondDegradation,
)  # fmt: skip
from lora_trainer.config.restoration_loss import Lambdas, LossWeights, Stability, Stage, lambdas_at, stages_of
from lora_trainer.config.restoration_model import STAND_IN, Adapter, Base, Judges
from lora_trainer.config.restoration_optimization import Average, Length, Optimizer, Precision
from lora_trainer.config.restoration_saving import Logging, Run, Saving, Validation

MODEL_PATHS = ("base_model_path", "discriminator_backbone", "lpips_weights")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", validate_default=False))
class RestorationPreset(
    Base, Adapter, Judges, LossWeights, Stability, Length, Optimizer, Average, Precision, Pictures, Crops, Degradation,
    FirstDegradation, SecondDegradation, LastDegradation, ValidationPictures, Validation, Saving, Logging, Run,
    CommonPreset,
):  # fmt: skip
    """A checked restoration preset. What a key means stands beside its field, in the class of its subject."""

    @property
    def first_lambdas(self) -> Lambdas:
        """The weights of the losses before lambda_schedule changes them."""
        return Lambdas(self.lambda_l2, self.lambda_l1, self.lambda_lpips, self.lambda_ssim, self.lambda_gan)

    @property
    def loss_stages(self) -> tuple[Stage, ...]:
        """The weights and when they begin to hold, from step 0 on, even after max_train_steps: that may change."""
        return stages_of(self.first_lambdas, self.lambda_schedule)

    def lambdas_at(self, done: int) -> Lambdas:
        """The weights of the step that follows `done` finished ones."""
        return lambdas_at(done, self.loss_stages, self.lambda_gan_warmup_steps)

    @property
    def has_discriminator(self) -> bool:
        """Whether the discriminator counts at any time of the training."""
        return any(stage.lambdas.gan for stage in self.loss_stages)

    @property
    def judged_steps(self) -> tuple[range, ...]:
        """The steps, counted from 0, in which the discriminator counts and learns: those of stages that weigh it."""
        stages = self.loss_stages
        ends = [*(stage.step for stage in stages[1:]), sys.maxsize]
        return tuple(range(stage.step, end) for stage, end in zip(stages, ends, strict=True) if stage.lambdas.gan)

    @property
    def learns_with_lpips(self) -> bool:
        return any(stage.lambdas.lpips for stage in self.loss_stages)

    def penalises(self, step: int) -> bool:
        """Whether R1 is computed in this step, counted from 0: in every r1_interval-th of the discriminator's."""
        own = sum(len(range(steps.start, min(steps.stop, step + 1))) for steps in self.judged_steps)
        learns = any(step in steps for steps in self.judged_steps)
        return self.penalises_gradients and learns and own % self.r1_interval == 0

    @property
    def needs_lpips(self) -> bool:
        return bool(self.val_dir) or self.learns_with_lpips

    @property
    def optimizer_options(self) -> dict[str, object]:
        return dict(self.opt_kwargs)

    @property
    def average_decay(self) -> float:
        """0 is no average."""
        return self.ema_decay if self.use_ema else 0.0

    @property
    def penalises_gradients(self) -> bool:
        """Whether there is an R1."""
        return self.has_discriminator and self.r1_gamma > 0

    @property
    def stand_ins(self) -> frozenset[str]:
        """The keys of networks that ask for a tiny one of ours."""
        return frozenset(key for key in MODEL_PATHS if getattr(self, key) == STAND_IN)
