"""The keys of a finetune preset about rates and optimizers, of the UNet and of the text encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from lora_trainer.config.kinds import AnyCase, Arguments, Count, NotNegative, Switch, Whole
from lora_trainer.config.setting import setting

Scheduler = Annotated[Literal["constant", "linear", "cosine", "polynomial"], AnyCase()]
TextScheduler = Annotated[Literal["same", "constant", "linear", "cosine", "polynomial"], AnyCase()]
WarmUp = Annotated[Whole, Ge(-1)]

FORMER_OPTIMIZERS = {"dadapt_adam": "DAdaptAdam", "dadapt_lion": "DAdaptLion", "dadapt_sgd": "DAdaptSGD"}

OptimizerName = Annotated[
    Literal[
        "AdamW8bit", "AdamW", "Lion", "Lion8bit", "Adafactor", "Prodigy",
        "DAdaptAdam", "DAdaptLion", "DAdaptSGD", "Adan", "PagedAdamW", "PagedAdamW8bit", "PagedLion8bit",
        "SGD", "SGDNesterov", "SGDNesterov8bit", "AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree",
    ],
    AnyCase(or_class=True),
]  # fmt: skip
TextOptimizerName = Annotated[
    Literal[
        "same", "AdamW8bit", "AdamW", "Lion", "Lion8bit", "Adafactor", "Prodigy",
        "DAdaptAdam", "DAdaptLion", "DAdaptSGD", "Adan", "PagedAdamW", "PagedAdamW8bit", "PagedLion8bit",
        "SGD", "SGDNesterov", "SGDNesterov8bit", "AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree",
    ],
    AnyCase(or_class=True),
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """How far a step goes."""

    lr: NotNegative = setting(
        0.0,
        "The learning rate. 0, or not set, is that of optimizer_config, and without one 1e-6 for the UNet, 5e-7 for "
        "the text encoder, and 1e-5 for a VAE.",
    )
    scale_lr: Switch = setting(
        False, "Multiply the rates by (batch_size * grad_accum) ** 0.55; with n processes by (n * ...) ** 0.55."
    )
    lr_scheduler: Scheduler = setting(
        "constant",
        "How the rate goes on after the warm-up: constant; down to 0 along a line, half a cosine, or a power.",
    )
    lr_warmup_steps: WarmUp = setting(
        -1, "Steps in which the rate rises from 0 along a line. -1, or not set, is 2 % of lr_decay_steps."
    )
    lr_decay_steps: Count = setting(
        0,
        "Steps after which the rate is 0; a cosine rises again after them. 0 is 1.5 times as many as the run has, so "
        "that the rate does not come down all the way.",
    )
    clip_grad_norm: NotNegative = setting(
        0.0, "A longer gradient, over all weights together, is shortened to this length before the step; 0 leaves it."
    )


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """What turns gradients into steps."""

    optimizer: OptimizerName = setting(
        "AdamW8bit",
        "The optimizer; upper and lower case do not matter. Prodigy, the DAdapt family, and Adafactor while its "
        "relative_step is on, find the rate themselves and take 1.0. Any other class is given by its path: "
        "torch.optim.NAdam.",
        old_values=FORMER_OPTIMIZERS,
        old_names={"useadam8bit": {True: "AdamW8bit", False: "AdamW"}},
    )
    optimizer_args: Arguments = setting(
        (),
        "The optimizer's options as name=value words, each value as Python writes it: weight_decay=0.1 "
        "betas=0.9,0.99. A list of such words is understood too.",
    )


@dataclass(frozen=True, kw_only=True)
class TextEncoderTraining:
    """What is different for the text encoder; what is not set is as for the UNet."""

    text_encoder_lr: NotNegative = setting(0.0, "The learning rate of the text encoder; 0 is lr.")
    text_encoder_lr_scale: NotNegative = setting(
        1.0, "Without text_encoder_lr, the text encoder's rate is lr times this."
    )
    text_encoder_lr_scheduler: TextScheduler = setting(
        "same", "The schedule of the text encoder; same is lr_scheduler."
    )
    text_encoder_lr_warmup_steps: WarmUp = setting(-1, "The warm-up of the text encoder; -1 is not set.")
    text_encoder_lr_decay_steps: Count = setting(0, "The decay of the text encoder; 0 is not set.")
    text_encoder_optimizer: TextOptimizerName = setting(
        "same", "The optimizer of the text encoder; same is optimizer.", old_values=FORMER_OPTIMIZERS
    )
    text_encoder_optimizer_args: Arguments = setting(
        (), "The options of the text encoder's optimizer, in place of those in optimizer_args that have the same name."
    )
