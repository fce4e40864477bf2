"""The keys of a LoRA preset about rates, optimizer and length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from lora_trainer.config.kinds import AnyCase, Arguments, Count, NotNegative, Number, Percent, Positive, Share, Text
from lora_trainer.config.setting import setting


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """How far a step goes."""

    learning_rate: NotNegative = setting(
        1e-4,
        "The rate of whatever has none of its own. It is used only when unet_lr and text_encoder_lr are both 0.",
        blank=0.0,
    )
    unet_lr: NotNegative = setting(
        1e-4,
        "The rate of the UNet. 0 does not train it, unless text_encoder_lr is 0 too: then both take learning_rate.",
        blank=0.0,
    )
    text_encoder_lr: NotNegative = setting(
        1e-4,
        "The rate of the text encoder, for SDXL of both. 0 does not train it, unless unet_lr is 0 too: then both "
        "take learning_rate.",
        blank=0.0,
    )
    lr_scheduler: Annotated[
        Literal[
            "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial",
            "adafactor", "piecewise_constant", "cosine_with_min_lr", "inverse_sqrt", "warmup_stable_decay",
        ],
        AnyCase(),
    ] = setting(
        "cosine", "How the rate goes on after the warm-up: constant; down to 0 along a line, half a cosine, "
        "lr_scheduler_num_cycles half cosines, or a power; down to lr_scheduler_min_lr_ratio along a cosine; as "
        "1 / sqrt(step); constant and down in the last lr_decay_steps; or in the steps of "
        "lr_scheduler_args step_rules. adafactor is constant: that optimizer finds the rate.")  # fmt: skip
    lr_warmup: Percent = setting(
        10.0, "Percent of all steps during which the rate rises from 0 along a line.", blank=0.0
    )
    lr_warmup_steps: NotNegative = setting(
        0.0, "The same in steps, and before lr_warmup; below 1 it is a share of all steps, 0 leaves it to lr_warmup."
    )
    lr_scheduler_num_cycles: Positive = setting(
        1, "How often cosine_with_restarts goes down from the full rate.", old_values={0: 1}
    )
    lr_scheduler_power: NotNegative = setting(1.0, "The power of polynomial: rate * (1 - progress) ** power.")
    lr_scheduler_min_lr_ratio: Share = setting(
        0.0, "What is left of the rate at the end of cosine_with_min_lr and warmup_stable_decay."
    )
    lr_decay_steps: NotNegative = setting(
        0.0, "warmup_stable_decay: over how many steps at the end the rate falls; below 1 a share of all steps."
    )
    lr_scheduler_timescale: Count = setting(
        0, "inverse_sqrt: after how many steps the rate begins to fall like 1 / sqrt(step); 0 takes the warm-up."
    )
    lr_scheduler_args: Arguments = setting(
        (),
        "More options of the schedule, as name=value words: num_cycles, power, min_lr, min_lr_rate, timescale, "
        "num_decay_steps, step_rules='1:1000,0.1:2000,0.01', or those of the class in lr_scheduler_type.",
    )
    lr_scheduler_type: Text = setting(
        "",
        "A scheduler of PyTorch in place of lr_scheduler, by its class name (CosineAnnealingLR) or by its dotted path. "
        "lr_warmup comes before it.",
    )
    loraplus_lr_ratio: NotNegative = setting(
        0.0, "LoRA+: how many times higher the rate of the up weights is; 0 or 1 is off, 16 is usual."
    )
    loraplus_unet_lr_ratio: NotNegative = setting(0.0, "The same for the UNet only; 0 leaves it to loraplus_lr_ratio.")
    loraplus_text_encoder_lr_ratio: NotNegative = setting(
        0.0, "The same for the text encoder only; 0 leaves it to loraplus_lr_ratio."
    )
    stop_text_encoder_training_pct: Annotated[Number, Ge(-1), Le(100)] = setting(
        0.0,
        "Percent of the steps after which the text encoder is not trained any more; 0 trains it to the end, and -1 "
        "not at all.",
        old_names={"stop_text_encoder_training": {}},
    )


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """What turns gradients into steps."""

    optimizer: Annotated[
        Literal[
            "AdamW", "AdamW8bit", "Lion", "Lion8bit", "Adafactor", "Prodigy",
            "DAdaptation", "DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptAdanIP", "DAdaptAdamPreprint",
            "DAdaptLion", "DAdaptSGD", "PagedAdamW", "PagedAdamW8bit", "PagedAdamW32bit", "PagedLion8bit",
            "SGDNesterov", "SGDNesterov8bit", "AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree",
        ],
        AnyCase(or_class=True),
    ] = setting(
        "AdamW8bit", "The optimizer; upper and lower case do not matter. Prodigy, the DAdapt family, and Adafactor "
        "while its relative_step is on, find the rate themselves and take 1.0 for every rate. Any other class is "
        "given by its path: torch.optim.NAdam.",
        old_names={"use_8bit_adam": {True: "AdamW8bit", False: "AdamW"}})  # fmt: skip
    optimizer_args: Arguments = setting(
        (),
        "The optimizer's options as name=value words, each value as Python writes it: weight_decay=0.1 "
        "betas=0.9,0.99. A list of such words is understood too.",
    )
    max_grad_norm: NotNegative = setting(
        1.0, "A longer gradient, over all weights together, is shortened to this length before the step; 0 leaves it."
    )


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long training goes on. max_train_epochs comes before max_train_steps, and that before epoch."""

    epoch: Positive = setting(1, "Passes over all images, repeats included.", may_change=True, old_values={0: 1})
    max_train_epochs: Count = setting(
        0, "The same as epoch, and before max_train_steps; 0 leaves it to the others.", may_change=True
    )
    max_train_steps: Count = setting(
        0,
        "Optimizer steps; 0 leaves it to epoch. The GUI puts 1600 where the key is missing; here it is 0.",
        may_change=True,
    )
