"""The keys of a restoration preset about losses: their weights, how these change, and what keeps the GAN stable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from lora_trainer.config.kinds import Count, NotNegative, Positive, Reads, Unfit, legal
from lora_trainer.config.problems import shown
from lora_trainer.config.setting import setting
from lora_trainer.errors import did_you_mean

STEP, PREFIX = "step", "lambda_"
WEIGHT_KEYS = ("lambda_l2", "lambda_l1", "lambda_lpips", "lambda_ssim", "lambda_gan")


@dataclass(frozen=True)
class Lambdas:
    """The weights of the losses in one step."""

    l2: float
    l1: float
    lpips: float
    ssim: float
    gan: float

    @property
    def of_pixels(self) -> tuple[float, ...]:
        """Those of all losses but the discriminator's."""
        return self.l2, self.l1, self.lpips, self.ssim


@dataclass(frozen=True)
class Stage:
    """Weights that hold from the moment on at which `step` steps are done."""

    step: int
    lambdas: Lambdas


def stages_of(first: Lambdas, changes: Iterable[Mapping[str, Any]]) -> tuple[Stage, ...]:
    """The weights from the beginning and after each change; what a change does not name stays as it was."""
    stages = [Stage(0, first)]
    for change in changes:
        new = {key.removeprefix(PREFIX): weight for key, weight in change.items() if key != STEP}
        stages.append(Stage(change[STEP], replace(stages[-1].lambdas, **new)))
    return tuple(stages)


def lambdas_at(done: int, stages: Iterable[Stage], warmup_steps: int) -> Lambdas:
    """The weights of the step that follows `done` finished ones.

    The discriminator's rises along a line from 0 in the first step to its whole value when `warmup_steps` are done.
    """
    lambdas = [stage.lambdas for stage in stages if stage.step <= done][-1]
    share = min(1.0, done / warmup_steps) if warmup_steps else 1.0
    return replace(lambdas, gan=lambdas.gan * share)


def _schedule(value: object) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, (list, tuple)):
        raise Unfit
    changes = tuple(_change(item) for item in value)
    for before, after in pairwise(change[STEP] for change in changes):
        if after <= before:
            raise Unfit(f"step {after} follows step {before}; write each step once, in their order")
    return changes


def _change(item: object) -> dict[str, Any]:
    if not isinstance(item, Mapping) or STEP not in item:
        raise Unfit
    for key in item:
        if key not in (STEP, *WEIGHT_KEYS):
            hint = did_you_mean(str(key), WEIGHT_KEYS)
            raise Unfit(f"a change has no {key}; write step and any of {', '.join(WEIGHT_KEYS)}{hint}")
    if len(item) == 1:
        raise Unfit(f"the change at step {item[STEP]} changes nothing; write step and any of {', '.join(WEIGHT_KEYS)}")
    return {key: _read(key, each) for key, each in item.items()}


def _read(key: str, value: object) -> int | float:
    kind = Positive if key == STEP else NotNegative
    try:
        found: int | float = TypeAdapter(kind).validate_python(value)
    except ValidationError:
        raise Unfit(f"{key} is {shown(value)}; write {legal(kind)}") from None
    return found


_CHANGE: dict[str, object] = {
    "type": "object",
    "required": [STEP],
    "properties": {
        STEP: {"type": "integer", "minimum": 1},
        **{key: {"type": "number", "minimum": 0} for key in WEIGHT_KEYS},
    },
    "additionalProperties": False,
}
LambdaSchedule = Annotated[
    tuple[dict[str, Any], ...],
    Reads(
        'a list of changes: [{"step": 10000, "lambda_gan": 0.3}]',
        _schedule,
        {"type": ["array", "null"], "items": _CHANGE},
    ),
]


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """How much each loss counts for the LoRA; 0 leaves one out. They are logged as loss/G_mse and so on, weighted."""

    lambda_l2: NotNegative = setting(
        1.0, "The weight of the mean squared difference, for PSNR. Pictures go from -1 to 1."
    )
    lambda_l1: NotNegative = setting(0.0, "The weight of the mean absolute difference; edges count more than with l2.")
    lambda_lpips: NotNegative = setting(
        5.0, "The weight of LPIPS, the difference in the eyes of a VGG. Too much of it costs PSNR."
    )
    lambda_ssim: NotNegative = setting(0.0, "The weight of 1 - SSIM of the luma: structure rather than brightness.")
    lambda_gan: NotNegative = setting(
        0.5,
        "The weight of the discriminator's verdict, which makes texture. Too much of it costs PSNR and SSIM. While it "
        "is 0, the discriminator rests.",
    )
    lambda_schedule: LambdaSchedule = setting(
        (),
        "Weights that change: each item has the number of steps that are done then, and the weights from there on; "
        'what it does not name stays. {"step": 10000, "lambda_l2": 2, "lambda_gan": 0.3} begins a second stage.',
    )


@dataclass(frozen=True, kw_only=True)
class Stability:
    """What keeps generator and discriminator in balance. Each step trains both, on different pictures."""

    lambda_gan_warmup_steps: Count = setting(
        0,
        "Steps in which lambda_gan rises from 0 along a line, while the discriminator learns to see; 0 is none.",
    )
    r1_gamma: NotNegative = setting(
        0.0,
        "The weight of R1, which keeps the gradients of the discriminator's heads at the features of real pictures "
        "small, so that its verdicts do not run away: gamma / 2 times their squared length. 0 is off.",
    )
    r1_interval: Positive = setting(
        16, "R1 is computed at every n-th of the discriminator's steps, and counts n times as much there."
    )
