"""The keys of online degradation in a restoration preset: those of super resolution, with HYPIR's ranges as defaults.

A picture is degraded as an upscaler's is, in two rounds, at the size of the ground truth divided by stage2_scale; then
it is brought back to full size, since a restoration leaves the size as it is.
"""

# ruff: noqa: RUF009 - _again makes a field, as setting does

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from annotated_types import Le

from lora_trainer.config import super_resolution_degradation as shared
from lora_trainer.config.kinds import Count, Numbers, Positive, Share, Span, Switch, Words
from lora_trainer.config.setting import no_effect, setting

RESIZE_MODES = ("area", "bilinear", "bicubic")
EQUALLY = (1.0, 1.0, 1.0)
KERNEL_SIDES = (7.0, 21.0)


def _again(owner: type[Any], name: str, default: object) -> Any:
    """A shared key with another default."""
    (story,) = (each.metadata for each in fields(owner) if each.name == name)
    return field(default=default, metadata=story)


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """Whether the bad pictures are made from good ones, and at which size."""

    high_order_degradation: Switch = setting(
        False, "Make the bad pictures by two rounds of degradation, on the device, anew for every crop."
    )
    use_sharpener: Switch = setting(
        True, "high_order_degradation: sharpen the good picture by an unsharp mask; it is what is to be restored then."
    )
    lq_usm: Switch = setting(
        False, "high_order_degradation: sharpen the picture before it is degraded, and not what is to be restored."
    )
    lq_usm_radius_range: Span = _again(shared.Degradation, "lq_usm_radius_range", (1.0, 25.0))
    stage2_scale: Annotated[Positive, Le(16)] = setting(
        4, "high_order_degradation: the degraded picture is so many times smaller, and is enlarged again."
    )
    resize_back: Switch = setting(
        True,
        "Enlarge it again.",
        effect=no_effect("the network wants the full size, so it is always done"),
    )
    queue_size: Count = setting(256, "The pool of degraded pictures.", effect=no_effect(shared.FRESH))


@dataclass(frozen=True, kw_only=True)
class FirstDegradation(shared.FirstDegradation):
    """Blur, resize, noise and JPEG, in this order."""

    blur_prob: Share = _again(shared.FirstDegradation, "blur_prob", 1.0)
    kernel_range: Span = _again(shared.FirstDegradation, "kernel_range", KERNEL_SIDES)
    sinc_prob: Share = _again(shared.FirstDegradation, "sinc_prob", 0.1)
    blur_sigma: Span = _again(shared.FirstDegradation, "blur_sigma", (0.2, 3.0))
    resize_mode_list: Words = _again(shared.FirstDegradation, "resize_mode_list", RESIZE_MODES)
    resize_mode_prob: Numbers = _again(shared.FirstDegradation, "resize_mode_prob", EQUALLY)
    resize_range: Span = _again(shared.FirstDegradation, "resize_range", (0.15, 1.5))
    gaussian_noise_prob: Share = _again(shared.FirstDegradation, "gaussian_noise_prob", 0.5)
    noise_range: Span = _again(shared.FirstDegradation, "noise_range", (1.0, 30.0))
    poisson_scale_range: Span = _again(shared.FirstDegradation, "poisson_scale_range", (0.05, 3.0))
    gray_noise_prob: Share = _again(shared.FirstDegradation, "gray_noise_prob", 0.4)
    jpeg_range: Span = _again(shared.FirstDegradation, "jpeg_range", (30.0, 95.0))
    blur_kernel_size: Count = _again(shared.FirstDegradation, "blur_kernel_size", 21)


@dataclass(frozen=True, kw_only=True)
class SecondDegradation(shared.SecondDegradation):
    """The same once more, usually milder."""

    blur_prob2: Share = _again(shared.SecondDegradation, "blur_prob2", 0.8)
    kernel_range2: Span = _again(shared.SecondDegradation, "kernel_range2", KERNEL_SIDES)
    sinc_prob2: Share = _again(shared.SecondDegradation, "sinc_prob2", 0.1)
    blur_sigma2: Span = _again(shared.SecondDegradation, "blur_sigma2", (0.2, 1.5))
    resize_mode_list2: Words = _again(shared.SecondDegradation, "resize_mode_list2", RESIZE_MODES)
    resize_mode_prob2: Numbers = _again(shared.SecondDegradation, "resize_mode_prob2", EQUALLY)
    resize_range2: Span = _again(shared.SecondDegradation, "resize_range2", (0.3, 1.2))
    gaussian_noise_prob2: Share = _again(shared.SecondDegradation, "gaussian_noise_prob2", 0.5)
    noise_range2: Span = _again(shared.SecondDegradation, "noise_range2", (1.0, 25.0))
    poisson_scale_range2: Span = _again(shared.SecondDegradation, "poisson_scale_range2", (0.05, 2.5))
    gray_noise_prob2: Share = _again(shared.SecondDegradation, "gray_noise_prob2", 0.4)
    jpeg_range2: Span = _again(shared.SecondDegradation, "jpeg_range2", (30.0, 95.0))
    blur_kernel_size2: Count = _again(shared.SecondDegradation, "blur_kernel_size2", 21)


@dataclass(frozen=True, kw_only=True)
class LastDegradation(shared.LastDegradation):
    """The way to the smaller size: a resize, and a sinc filter and a compression in either order."""

    resize_mode_list3: Words = _again(shared.LastDegradation, "resize_mode_list3", RESIZE_MODES)
    resize_mode_prob3: Numbers = _again(shared.LastDegradation, "resize_mode_prob3", EQUALLY)
    final_sinc_prob: Share = _again(shared.LastDegradation, "final_sinc_prob", 0.8)
    final_kernel_range: Span = _again(shared.LastDegradation, "final_kernel_range", KERNEL_SIDES)
