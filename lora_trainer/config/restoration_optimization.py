"""The keys of a restoration preset about length, optimizers, the average and number formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Gt

from lora_trainer.config import common
from lora_trainer.config.kinds import AnyCase, NotNegative, Number, Positive, Reads, Share, Switch, Unfit
from lora_trainer.config.setting import no_effect, setting

Rate = Annotated[Number, Gt(0)]


def _options(value: object) -> tuple[tuple[str, object], ...]:
    if isinstance(value, tuple):
        return value
    if not isinstance(value, Mapping):
        raise Unfit
    return tuple((str(name), _option(str(name), each)) for name, each in value.items())


def _option(name: str, value: object) -> object:
    if isinstance(value, (list, tuple)):
        return tuple(_option(name, each) for each in value)
    if isinstance(value, Mapping):
        raise Unfit(f"{name} is an object; write a number, true, false, a text or a list of numbers")
    return value


Options = Annotated[
    tuple[tuple[str, Any], ...],
    Reads(
        'an object of options: {"betas": [0.9, 0.999], "weight_decay": 1e-4}',
        _options,
        {"type": ["object", "null"]},
    ),
]


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long, counted in steps; one trains the LoRA and then the discriminator."""

    max_train_steps: Positive = setting(50000, "Steps of the whole training.", may_change=True)
    gradient_accumulation_steps: Positive = setting(
        1, "Forward passes per optimizer step; their pictures count as one batch."
    )


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """What turns gradients into steps. Both rates stay as they are from the first step to the last."""

    optimizer_type: Annotated[
        Literal[
            "AdamW", "AdamW8bit", "PagedAdamW", "PagedAdamW8bit", "RMSprop", "RMSprop8bit", "Lion", "Lion8bit",
            "PagedLion8bit", "NAdam", "RAdam", "SGD",
        ],
        AnyCase(or_class=True),
    ] = setting(
        "AdamW",
        "The optimizer of the LoRA and of the discriminator. adam is AdamW, as in HYPIR. Any other class is given by "
        "its path: torch.optim.Adam.",
        old_values={"adam": "AdamW"},
    )  # fmt: skip
    opt_kwargs: Options = setting(
        (),
        "Options of both optimizers. AdamW's own are betas [0.9, 0.999] and a weight_decay of 0.01, so that writing "
        "1e-4 makes it smaller.",
    )
    lr_G: Rate = setting(1e-5, "The learning rate of the LoRA (the generator).")  # noqa: N815, HYPIR's name
    lr_D: Rate = setting(  # noqa: N815, HYPIR's name
        1e-5, "The learning rate of the discriminator's heads; a lower one than lr_G holds a strong one back."
    )
    max_grad_norm: NotNegative = setting(
        1.0, "A longer gradient of either is shortened to this length before the step; 0 leaves it."
    )
    gradient_checkpointing: Switch = setting(
        True,
        "Compute parts of the UNet and of the VAE's decoder once more instead of keeping them: less memory, slower "
        "steps.",
    )


@dataclass(frozen=True, kw_only=True)
class Average:
    """The smoothed copy of the LoRA (EMA), which is what is validated."""

    use_ema: Switch = setting(True, "Keep a smoothed copy of the LoRA and save it as ema_state_dict.pth too.")
    ema_decay: Share = setting(0.999, "How much of the copy stays in a step; 0 is no copy.")
    resume_ema: Switch = setting(
        True, "Restore the copy.", may_change=True, effect=no_effect("a checkpoint always holds the copy")
    )


@dataclass(frozen=True, kw_only=True)
class Precision(common.Precision):
    """Number formats."""

    mixed_precision: Annotated[Literal["no", "fp16", "bf16"], AnyCase()] = setting(
        "bf16",
        "The number format of what is not trained and of the forward and backward pass; no is 32 bits. The LoRA and "
        "the discriminator's heads are kept in 32 bits.",
    )
