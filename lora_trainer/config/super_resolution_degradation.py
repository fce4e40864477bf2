"""The keys of online degradation: how a high-resolution crop becomes the bad picture that the upscaler must mend.

The names and defaults are those of traiNNer-redux's OTF templates; presets/super_resolution has Real-ESRGAN's ranges.
"""

from __future__ import annotations

from dataclasses import dataclass

from lora_trainer.config.kinds import Count, Numbers, Share, Span, Switch, Words
from lora_trainer.config.setting import no_effect, not_yet, setting

KERNELS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
KERNEL_PROBS = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
RESIZE_MODES = ("bilinear", "bicubic", "nearest-exact", "lanczos")
RESIZE_PROBS = (0.25, 0.25, 0.25, 0.25)
PADDED = "kernels are padded as far as a batch needs"
FRESH = "every crop is degraded on its own, so nothing has to be shuffled in a queue"
SHEET = "--dry-run draws a sheet of degraded crops"


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """Whether the low resolution is made by degradation, and what begins it."""

    high_order_degradation: Switch = setting(
        False, "Make the low resolution by two rounds of degradation, on the device, anew for every crop."
    )
    dataroot_lq_prob: Share = setting(
        0.0, "How often the paired picture of dataroot_lq is taken in place of a degraded one."
    )
    lq_usm: Switch = setting(False, "Sharpen the picture before it is degraded.")
    lq_usm_radius_range: Span = setting((1.0, 25.0), "The side of that unsharp mask's Gaussian in pixels, made odd.")
    thicklines_prob: Share = setting(0.0, "How often dark lines are thickened first.", effect=not_yet())
    queue_size: Count = setting(120, "The pool of degraded pictures.", effect=no_effect(FRESH))
    high_order_degradations_debug: Switch = setting(
        False, "Save degraded crops.", may_change=True, effect=no_effect(SHEET)
    )
    high_order_degradations_debug_limit: Count = setting(100, "How many.", may_change=True, effect=no_effect(SHEET))


@dataclass(frozen=True, kw_only=True)
class FirstDegradation:
    """Blur, resize, noise and JPEG, in this order."""

    blur_prob: Share = setting(0.0, "First degradation: how often a picture is blurred.")
    kernel_list: Words = setting(KERNELS, "First degradation: the kinds of blur.")
    kernel_prob: Numbers = setting(KERNEL_PROBS, "First degradation: how likely each kind of blur is.")
    kernel_range: Span = setting((5.0, 17.0), "First degradation: the sides of blur kernels, odd numbers of pixels.")
    sinc_prob: Share = setting(0.0, "First degradation: how often the blur is a sinc filter, which rings.")
    blur_sigma: Span = setting((0.2, 2.0), "First degradation: the width of Gaussian blurs in pixels.")
    betag_range: Span = setting((0.5, 4.0), "First degradation: the shape of generalized Gaussian blurs.")
    betap_range: Span = setting((1.0, 2.0), "First degradation: the shape of plateau blurs.")
    resize_prob: Numbers = setting((0.2, 0.7, 0.1), "First degradation: how likely the size goes up, down, or stays.")
    resize_mode_list: Words = setting(RESIZE_MODES, "First degradation: the ways of resizing.")
    resize_mode_prob: Numbers = setting(RESIZE_PROBS, "First degradation: how likely each way of resizing is.")
    resize_range: Span = setting((0.4, 1.5), "First degradation: the factors of resizing.")
    gaussian_noise_prob: Share = setting(
        0.0, "First degradation: how often noise is Gaussian; the others get Poisson noise."
    )
    noise_range: Span = setting((0.0, 0.0), "First degradation: the strength of Gaussian noise in levels of 255.")
    poisson_scale_range: Span = setting((0.0, 0.0), "First degradation: the strength of Poisson noise.")
    gray_noise_prob: Share = setting(0.0, "First degradation: how often noise is the same in all three colours.")
    jpeg_prob: Share = setting(1.0, "First degradation: how often a picture is JPEG-compressed.")
    jpeg_range: Span = setting((75.0, 95.0), "First degradation: the qualities of JPEG, 1 to 100.")
    blur_kernel_size: Count = setting(12, "First degradation: the padded side of kernels.", effect=no_effect(PADDED))


@dataclass(frozen=True, kw_only=True)
class SecondDegradation:
    """The same once more, usually milder."""

    blur_prob2: Share = setting(0.0, "Second degradation: how often a picture is blurred.")
    kernel_list2: Words = setting(KERNELS, "Second degradation: the kinds of blur.")
    kernel_prob2: Numbers = setting(KERNEL_PROBS, "Second degradation: how likely each kind of blur is.")
    kernel_range2: Span = setting((5.0, 17.0), "Second degradation: the sides of blur kernels, odd numbers of pixels.")
    sinc_prob2: Share = setting(0.0, "Second degradation: how often the blur is a sinc filter, which rings.")
    blur_sigma2: Span = setting((0.2, 1.0), "Second degradation: the width of Gaussian blurs in pixels.")
    betag_range2: Span = setting((0.5, 4.0), "Second degradation: the shape of generalized Gaussian blurs.")
    betap_range2: Span = setting((1.0, 2.0), "Second degradation: the shape of plateau blurs.")
    resize_prob2: Numbers = setting((0.3, 0.4, 0.3), "Second degradation: how likely the size goes up, down, or stays.")
    resize_mode_list2: Words = setting(RESIZE_MODES, "Second degradation: the ways of resizing.")
    resize_mode_prob2: Numbers = setting(RESIZE_PROBS, "Second degradation: how likely each way of resizing is.")
    resize_range2: Span = setting((0.6, 1.2), "Second degradation: the factors of resizing.")
    gaussian_noise_prob2: Share = setting(
        0.0, "Second degradation: how often noise is Gaussian; the others get Poisson noise."
    )
    noise_range2: Span = setting((0.0, 0.0), "Second degradation: the strength of Gaussian noise in levels of 255.")
    poisson_scale_range2: Span = setting((0.0, 0.0), "Second degradation: the strength of Poisson noise.")
    gray_noise_prob2: Share = setting(0.0, "Second degradation: how often noise is the same in all three colours.")
    jpeg_prob2: Share = setting(1.0, "Second degradation: how often a picture is JPEG-compressed.")
    jpeg_range2: Span = setting((75.0, 95.0), "Second degradation: the qualities of JPEG, 1 to 100.")
    blur_kernel_size2: Count = setting(12, "Second degradation: the padded side of kernels.", effect=no_effect(PADDED))


@dataclass(frozen=True, kw_only=True)
class LastDegradation:
    """The way to the final size: a resize, and a sinc filter and a compression in either order."""

    resize_mode_list3: Words = setting(RESIZE_MODES, "The ways of resizing to the final size.")
    resize_mode_prob3: Numbers = setting(RESIZE_PROBS, "How likely each of them is.")
    final_sinc_prob: Share = setting(0.0, "How often a sinc filter comes last.")
    final_kernel_range: Span = setting((5.0, 17.0), "The sides of that filter, odd numbers of pixels.")
    video_prob: Share = setting(
        0.0, "How often the last compression is a video codec in place of JPEG; needs lora_trainer[video]."
    )
    video_codecs: Words = setting(("h264", "h265"), "The video codecs, drawn with equal chances.")
    video_crf_range: Span = setting((18.0, 35.0), "The codecs' constant rate factor: higher is worse.")
