"""The keys of a GAN's preset about batches, length, penalties, rates and number formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Gt

from lora_trainer.config import common
from lora_trainer.config.kinds import AnyCase, Count, NotNegative, Number, Positive, Reads, Switch, Unfit
from lora_trainer.config.setting import setting


def _weight(value: object) -> float:
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise Unfit
    return number


MaybeWeight = Annotated[
    Any,
    Reads("a number from 0 upwards", _weight, {"type": ["number", "string", "null"], "minimum": 0}),
]
Kimg = Annotated[Number, Gt(0)]


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How many images a step sees, and how they are shared out."""

    batch: Positive = setting(
        32,
        "Images of a step, over all processes: the same training, whatever the number of processes.",
        required=True,
        example="32",
    )
    batch_gpu: Count = setting(
        0,
        "At most so many images pass the networks at a time in each process: fewer save memory and need more passes. 0 "
        "is batch divided by the processes.",
        old_names={"batch-gpu": {}},
    )
    gpus: Count = setting(
        0,
        "The number of processes that the preset was meant for. The launcher starts them; another number is told and "
        "changes nothing but speed and memory. 0 does not say.",
        may_change=True,
    )


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long, counted in thousands of images that were shown to the discriminator (kimg)."""

    kimg: Kimg = setting(25000.0, "The whole training; after 5000 results should look reasonable.", may_change=True)
    decay_kimg: Kimg = setting(
        20000.0,
        "r3gan: over so many kimg the rates fall to a quarter and gamma to a tenth, and Adam's beta2, the average and "
        "a fixed augmentation rise, all along a cosine.",
    )


@dataclass(frozen=True, kw_only=True)
class Penalties:
    """What keeps the two networks in bounds."""

    gamma: MaybeWeight = setting(
        None,
        "The weight of R1, which keeps the discriminator's gradients at real images small: the one number to try out "
        "for each data set. It grows with the square of the resolution; without it the run says which to begin with.",
    )
    pl_weight: MaybeWeight = setting(
        None,
        "The weight of path length regularisation, by which steps of w change images evenly. Not set, it is 2 for "
        "stylegan2 and creps.",
    )
    pl_start_kimg: NotNegative = setting(0.0, "No path length regularisation before so many kimg.")


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How far Adam goes in a step, and how far back the averaged generator reaches, which is the one that is judged."""

    glr: NotNegative = setting(
        0.0,
        "The generator's learning rate; 0 is the usual one: 0.0025 for stylegan3, 0.002 for stylegan2 and creps, "
        "0.0002 for r3gan.",
    )
    dlr: NotNegative = setting(
        0.0, "The discriminator's learning rate; 0 is the usual one: 0.002, and 0.0002 for r3gan."
    )
    ema_kimg: NotNegative = setting(
        0.0,
        "The half-life of the averaged generator in kimg; 0 is the usual one: 10 for a batch of 32 and in proportion, "
        "for r3gan 500.",
    )


@dataclass(frozen=True, kw_only=True)
class Precision(common.Precision):
    """Number formats and speed."""

    mixed_precision: Annotated[Literal["no", "fp16", "bf16"], AnyCase()] = setting(
        "fp16",
        "The number format of the four highest resolutions on a GPU; no is 32 bits. All else, and everything on a CPU, "
        "is in 32 bits.",
    )
    fp32: Switch = setting(False, "Everything in 32 bits, as with mixed_precision no, and no bound on activations.")
    allow_tf32: Switch = setting(
        True,
        "Let products of layers in 32 bits be rounded to TF32 on the GPUs that have it.",
        old_names={"allow-tf32": {}},
    )
    fused_filtered_lrelu: Switch = setting(
        False,
        "StyleGAN3's layers in half precision bend in one go, by a Triton kernel that keeps nothing of the higher "
        "sampling rate: less memory; equal up to rounding. For CUDA cards from Ampere on, stylegan3-t above all. It is "
        "tried at the start, and the run goes on step by step where it fails. Its speed has not been measured on a "
        "card yet; `python -m tools.bench_gan` measures it on yours.",
        may_change=True,
    )
    nobench: Switch = setting(
        False, "Do not have cuDNN try its algorithms at the start: slower steps, less memory.", may_change=True
    )
