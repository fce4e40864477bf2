"""The keys of a super-resolution preset about losses, optimizers and length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from lora_trainer.config.kinds import (
    Anything,
    Component,
    Count,
    NotNegative,
    Part,
    Parts,
    Positive,
    Share,
    Switch,
    Text,
    Whole,
)  # fmt: skip
from lora_trainer.config.setting import no_effect, setting

ADAMW = Component("AdamW", {"lr": 2e-4, "weight_decay": 0, "betas": [0.9, 0.99]})
ADAMW_D = Component("AdamW", {"lr": 1e-4, "weight_decay": 0, "betas": [0.9, 0.99]})
MULTI_STEP = Component("MultiStepLR", {"milestones": [250000, 400000, 450000, 475000], "gamma": 0.5})
LAUNCHER = "the launcher decides: accelerate or torchrun"


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long, and with which losses and optimizers."""

    total_iter: Positive = setting(
        500000, "Optimizer steps of the whole training.", required=True, example="500000", may_change=True
    )
    losses: Parts = setting(
        (Component("msssiml1loss", {"alpha": 0.1, "loss_weight": 1.0}),),
        "The losses with their weights; 0 disables one. docs/super_resolution.md has the list.",
    )
    optim_g: Part = setting(ADAMW, "The generator's optimizer, with its learning rate lr.")
    optim_d: Part = setting(ADAMW_D, "The discriminator's optimizer.")
    scheduler: Part = setting(
        MULTI_STEP, "How the learning rates change over the steps: any scheduler of PyTorch by name."
    )
    warmup_iter: Annotated[Whole, Ge(-1)] = setting(-1, "Steps in which the rates rise from zero; -1 is none.")
    grad_clip: Switch = setting(False, "Shorten long gradients.")
    grad_clip_max_norm: NotNegative = setting(100.0, "The length that a gradient is shortened to by grad_clip.")


@dataclass(frozen=True, kw_only=True)
class MovingAverage:
    """The smoothed copy of the generator (EMA), which is what is validated and saved."""

    ema_decay: Share = setting(0.999, "How much of the copy stays in a step; 0 is no copy.")
    ema_power: NotNegative = setting(
        0.0, "Let the decay rise as 1 - (1 + step) ** -power up to ema_decay; 0 is the full decay at once."
    )
    ema_update_after_step: Count = setting(0, "Steps before the copy begins.")
    ema_switch_iter: Count = setting(0, "Every so many steps the generator itself becomes its copy; 0 is never.")


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """How generator and discriminator take turns."""

    net_d_iters: Positive = setting(1, "The generator takes part in every n-th step.")
    net_d_init_iters: Count = setting(0, "Steps in which the discriminator learns alone.")
    adaptive_d: Switch = setting(
        False, "Let the discriminator rest while the generator's GAN loss rises. Waits for the device in each step."
    )
    adaptive_d_ema_decay: Share = setting(0.999, "How that loss is smoothed.")
    adaptive_d_threshold: NotNegative = setting(
        1.02, "Rest when the smoothed loss is more than this many times its lowest value."
    )


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What traiNNer-redux's launcher wants to know."""

    num_gpu: Text = setting(
        "auto", "How many GPUs.", may_change=True, effect=no_effect(LAUNCHER),
        old_values={n: str(n) for n in range(17)},
    )  # fmt: skip
    find_unused_parameters: Switch = setting(
        False, "For networks with idle weights.", may_change=True,
        effect=no_effect("weights that no loss reaches are left out of the training"),
    )  # fmt: skip
    dist_params: Anything = setting(None, "How processes find each other.", may_change=True, effect=no_effect(LAUNCHER))
    dist: Anything = setting(None, "Several processes.", may_change=True, effect=no_effect(LAUNCHER))
    launcher: Text = setting("", "The launcher.", may_change=True, effect=no_effect(LAUNCHER))
    rank: Count = setting(0, "The process.", may_change=True, effect=no_effect(LAUNCHER))
    world_size: Count = setting(1, "How many processes.", may_change=True, effect=no_effect(LAUNCHER))
    is_train: Switch = setting(True, "Train.", may_change=True, effect=no_effect("a preset is always for training"))
    watch: Switch = setting(False, "Watch.", may_change=True, effect=no_effect("there is nothing to watch"))
    restart_scheduler: Switch = setting(
        False, "Begin the schedule anew.", may_change=True,
        effect=no_effect("the schedule is a function of the step and of the preset"),
    )  # fmt: skip
    onnx: Anything = setting(
        None, "How a model is exported.", may_change=True, effect=no_effect("tools/export_onnx.py exports a model")
    )
    auto_resume: Switch = setting(
        True, "Go on by itself.", may_change=True, effect=no_effect("the same command always goes on")
    )
