"""Online degradation: Real-ESRGAN's two rounds of blur, resize, noise and JPEG (Wang et al. 2021), and video codecs.

What happens to a crop is planned on the CPU, as numbers that follow from the crop's key; then it is done on the crop's
device, without waiting for it (video codecs excepted). A crop's result does not depend on its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from random import Random

import torch
from torch import Tensor

from lora_trainer.data.blur_kernels import KINDS, Blur, apply_kernels, sharpened, stack_kernels
from lora_trainer.data.image_noise import gaussian_noise, poisson_noise
from lora_trainer.data.jpeg import jpeg
from lora_trainer.data.resize import MODES, interpolate, to_eight_bits
from lora_trainer.data.video_codec import ENCODERS, check_encoders, compress_as_video
from lora_trainer.draws import draw_key, python_random

Range = tuple[float, float]
ROUNDS = ("", "2")
LARGEST_USM_PX = 50


@dataclass(frozen=True)
class DegradationSettings:
    """The ranges that the draws come from, by traiNNer-redux's names; the defaults are its mild ones.

    Names that end in 2 are those of the second round. Probabilities are shares; noise is in levels of 255.
    """

    blur_prob: float = 0.0
    kernel_list: Sequence[str] = KINDS
    kernel_prob: Sequence[float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    kernel_range: Range = (5, 17)
    sinc_prob: float = 0.0
    blur_sigma: Range = (0.2, 2)
    betag_range: Range = (0.5, 4)
    betap_range: Range = (1, 2)
    resize_prob: Sequence[float] = (0.2, 0.7, 0.1)
    resize_mode_list: Sequence[str] = ("bilinear", "bicubic", "nearest-exact", "lanczos")
    resize_mode_prob: Sequence[float] = (0.25, 0.25, 0.25, 0.25)
    resize_range: Range = (0.4, 1.5)
    gaussian_noise_prob: float = 0.0
    noise_range: Range = (0, 0)
    poisson_scale_range: Range = (0, 0)
    gray_noise_prob: float = 0.0
    jpeg_prob: float = 1.0
    jpeg_range: Range = (75, 95)
    blur_prob2: float = 0.0
    kernel_list2: Sequence[str] = KINDS
    kernel_prob2: Sequence[float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    kernel_range2: Range = (5, 17)
    sinc_prob2: float = 0.0
    blur_sigma2: Range = (0.2, 1)
    betag_range2: Range = (0.5, 4)
    betap_range2: Range = (1, 2)
    resize_prob2: Sequence[float] = (0.3, 0.4, 0.3)
    resize_mode_list2: Sequence[str] = ("bilinear", "bicubic", "nearest-exact", "lanczos")
    resize_mode_prob2: Sequence[float] = (0.25, 0.25, 0.25, 0.25)
    resize_range2: Range = (0.6, 1.2)
    gaussian_noise_prob2: float = 0.0
    noise_range2: Range = (0, 0)
    poisson_scale_range2: Range = (0, 0)
    gray_noise_prob2: float = 0.0
    jpeg_prob2: float = 1.0
    jpeg_range2: Range = (75, 95)
    resize_mode_list3: Sequence[str] = ("bilinear", "bicubic", "nearest-exact", "lanczos")
    resize_mode_prob3: Sequence[float] = (0.25, 0.25, 0.25, 0.25)
    final_sinc_prob: float = 0.0
    final_kernel_range: Range = (5, 17)
    lq_usm: bool = False
    lq_usm_radius_range: Range = (1, 25)
    video_prob: float = 0.0
    video_codecs: Sequence[str] = ("h264", "h265")
    video_crf_range: Range = (18, 35)

    def validate(self) -> list[str]:
        """A sentence `key: what is wrong` for each problem. Raises Refusal when a codec is asked for and not there."""
        problems = [*self._lists(), *self._ranges()]
        if self.video_prob and not problems:
            check_encoders(tuple(self.video_codecs))
        return problems

    def _lists(self) -> Iterator[str]:
        for names, probs, known in (
            *((f"kernel_list{n}", f"kernel_prob{n}", KINDS) for n in ROUNDS),
            *((f"resize_mode_list{n}", f"resize_mode_prob{n}", MODES) for n in (*ROUNDS, "3")),
        ):
            given, shares = getattr(self, names), getattr(self, probs)
            unknown = [name for name in given if name not in known]
            if unknown:
                yield f"{names}: there is no {', '.join(unknown)}; there is {', '.join(known)}"
            if len(given) != len(shares):
                yield f"{probs}: {len(shares)} numbers for the {len(given)} of {names}"
            elif not sum(shares) > 0 or min(shares) < 0:
                yield f"{probs}: {list(shares)}; write shares from 0 upwards, not all of them 0"
        for key in ("resize_prob", "resize_prob2"):
            shares = getattr(self, key)
            if len(shares) != 3 or not sum(shares) > 0 or min(shares) < 0:
                yield f"{key}: {list(shares)}; write three shares: up, down, keep"
        if self.video_prob and not self.video_codecs:
            yield f"video_codecs: empty, but video_prob is {self.video_prob:g}; write {' or '.join(ENCODERS)}"
        if unknown := [codec for codec in self.video_codecs if codec not in ENCODERS]:
            yield f"video_codecs: there is no {', '.join(unknown)}; there is {', '.join(ENCODERS)}"

    def _ranges(self) -> Iterator[str]:
        both = {
            "kernel_range": (3, 51), "blur_sigma": (0.01, 100), "betag_range": (0.01, 100), "betap_range": (0.01, 100),
            "resize_range": (0.05, 8), "noise_range": (0, 255), "poisson_scale_range": (0, 100), "jpeg_range": (1, 100),
        }  # fmt: skip
        bounds: dict[str, tuple[float, float]] = {f"{key}{n}": limits for n in ROUNDS for key, limits in both.items()}
        bounds |= {
            "final_kernel_range": (3, 51),
            "video_crf_range": (0, 51),
            "lq_usm_radius_range": (1, LARGEST_USM_PX),
        }
        for key, (least, most) in bounds.items():
            low, high = getattr(self, key)
            if not least <= low <= high <= most:
                yield f"{key}: [{low:g}, {high:g}]; write two numbers from {least} to {most}, the smaller one first"
            elif "kernel" in key and low == high and low % 2 == 0:
                yield f"{key}: [{low:g}, {high:g}] has no odd number; kernels have a middle pixel"


@dataclass(frozen=True)
class Round:
    """Blur, resize, noise and JPEG in numbers; None and 0 are nothing."""

    blur: Blur | None
    factor: float
    mode: str
    gaussian: float
    poisson: float
    grey: bool
    quality: int


@dataclass(frozen=True)
class DegradationPlan:
    """What happens to one crop."""

    key: int
    scale: int
    usm_side_px: int
    rounds: tuple[Round, Round]
    mode: str
    sinc: Blur | None
    sinc_first: bool  # before the last compression, or after it
    codec: str
    crf: int


def plan_degradation(settings: DegradationSettings, scale: int, size_px: tuple[int, int], key: int) -> DegradationPlan:
    """The draws of a crop of (height, width) pixels; they follow from the key alone."""
    draw = python_random(key, "degradation")
    # the field's "radius" is the side of the Gaussian, made odd
    usm = round(draw.uniform(*settings.lq_usm_radius_range)) | 1 if settings.lq_usm else 0
    rounds = tuple(_round(settings, number, draw) for number in ROUNDS)
    (mode,) = draw.choices(settings.resize_mode_list3, settings.resize_mode_prob3)
    sinc = _sinc(settings.final_kernel_range, draw, narrowest=3.0) if draw.random() < settings.final_sinc_prob else None
    codec = draw.choice(tuple(settings.video_codecs)) if draw.random() < settings.video_prob else ""
    crf = round(draw.uniform(*settings.video_crf_range))
    return DegradationPlan(key, scale, usm, (rounds[0], rounds[1]), mode, sinc, draw.random() < 0.5, codec, crf)


@torch.no_grad()
def degrade(gt: Tensor, plans: Sequence[DegradationPlan]) -> Tensor:
    """(b, 3, h, w) from 0 to 1 -> (b, 3, h / scale, w / scale), rounded to 8 bits."""
    with torch.autocast(gt.device.type, enabled=False):
        return torch.cat([_degraded(gt[index : index + 1].float(), plan) for index, plan in enumerate(plans)])


def describe(plan: DegradationPlan) -> str:
    """One line for a person."""
    words = [f"sharpen {plan.usm_side_px}"] if plan.usm_side_px else []
    for each in plan.rounds:
        words += [f"blur {each.blur}"] if each.blur else []
        words += [f"resize {each.factor:.2f} {each.mode}"] if each.factor != 1 else []
        words += [f"noise {each.gaussian:.0f}"] if each.gaussian else []
        words += [f"shot noise {each.poisson:.2f}"] if each.poisson else []
        words += [f"jpeg {each.quality}"] if each.quality and not (plan.codec and each is plan.rounds[1]) else []
    words += [f"{plan.codec} {plan.crf}"] if plan.codec else []
    return ", ".join([*words, f"to size {plan.mode}", *([str(plan.sinc)] if plan.sinc else [])])


def _round(settings: DegradationSettings, number: str, draw: Random) -> Round:
    def value(name: str) -> float:
        return float(getattr(settings, f"{name}{number}"))

    def span(name: str) -> Range:
        found: Range = getattr(settings, f"{name}{number}")
        return found

    drawn = _blur(settings, number, draw)
    blur = drawn if draw.random() < value("blur_prob") else None
    (way,) = draw.choices(("up", "down", "keep"), getattr(settings, f"resize_prob{number}"))
    low, high = span("resize_range")
    factor = {"up": draw.uniform(1, max(1, high)), "down": draw.uniform(min(1, low), 1), "keep": 1.0}[way]
    (mode,) = draw.choices(
        getattr(settings, f"resize_mode_list{number}"), getattr(settings, f"resize_mode_prob{number}")
    )
    is_gaussian = draw.random() < value("gaussian_noise_prob")
    sigma, strength = draw.uniform(*span("noise_range")), draw.uniform(*span("poisson_scale_range"))
    grey = draw.random() < value("gray_noise_prob")
    quality = round(draw.uniform(*span("jpeg_range")))
    quality = quality if draw.random() < value("jpeg_prob") else 0
    return Round(blur, factor, mode, sigma if is_gaussian else 0.0, 0.0 if is_gaussian else strength, grey, quality)


def _blur(settings: DegradationSettings, number: str, draw: Random) -> Blur:
    sides: Range = getattr(settings, f"kernel_range{number}")
    if draw.random() < getattr(settings, f"sinc_prob{number}"):
        return _sinc(sides, draw)
    (kind,) = draw.choices(getattr(settings, f"kernel_list{number}"), getattr(settings, f"kernel_prob{number}"))
    sigma_x = draw.uniform(*getattr(settings, f"blur_sigma{number}"))
    sigma_y, angle = draw.uniform(*getattr(settings, f"blur_sigma{number}")), draw.uniform(-3.14159265, 3.14159265)
    if not kind.endswith("aniso"):
        sigma_y, angle = sigma_x, 0.0
    beta = 1.0
    for word, key in (("generalized", "betag_range"), ("plateau", "betap_range")):
        if kind.startswith(word):  # as often below 1 as above it
            low, high = getattr(settings, f"{key}{number}")
            beta = draw.uniform(min(low, 1), 1) if draw.random() < 0.5 else draw.uniform(1, max(1, high))
    return Blur(kind, _side(sides, draw), sigma_x, sigma_y, angle, beta)


def _sinc(sides: Range, draw: Random, narrowest: float = 5.0) -> Blur:
    """A low pass; a small one must not cut too much off, or it has nothing left to ring with."""
    side = _side(sides, draw)
    low = 3.14159265 / 3 if side < 13 else 3.14159265 / narrowest
    return Blur("sinc", side, cutoff=draw.uniform(low, 3.14159265))


def _side(sides: Range, draw: Random) -> int:
    """An odd number of pixels, both ends included."""
    return 2 * draw.randint(int(sides[0]) // 2, (int(sides[1]) - 1) // 2) + 1


def _degraded(image: Tensor, plan: DegradationPlan) -> Tensor:
    height, width = (int(side) for side in image.shape[-2:])
    target = (height // plan.scale, width // plan.scale)
    generator = torch.Generator(image.device).manual_seed(draw_key(plan.key, "noise") & 0x7FFF_FFFF_FFFF_FFFF)
    if plan.usm_side_px:
        image = sharpened(image, [plan.usm_side_px])
    first, second = plan.rounds
    image = _noisy(_resized(_blurred(image, first.blur), (height, width), first), first, generator)
    image = jpeg(image, [first.quality]) if first.quality else image
    image = _noisy(_resized(_blurred(image, second.blur), target, second), second, generator)

    def compress(image: Tensor) -> Tensor:
        if plan.codec:
            return compress_as_video(image, plan.codec, plan.crf)
        return jpeg(image, [second.quality]) if second.quality else image

    def finish(image: Tensor) -> Tensor:
        return _blurred(interpolate(image, target, plan.mode), plan.sinc).clamp(0, 1)

    steps: tuple[Callable[[Tensor], Tensor], ...] = (finish, compress) if plan.sinc_first else (compress, finish)
    for step in steps:
        image = step(image)
    return to_eight_bits(image)


def _blurred(image: Tensor, blur: Blur | None) -> Tensor:
    return image if blur is None else apply_kernels(image, stack_kernels([blur.kernel()]))


def _resized(image: Tensor, size_px: tuple[int, int], each: Round) -> Tensor:
    height, width = (max(4, int(side * each.factor)) for side in size_px)
    return interpolate(image, (height, width), each.mode).clamp(0, 1)


def _noisy(image: Tensor, each: Round, generator: torch.Generator) -> Tensor:
    if each.gaussian:
        return gaussian_noise(image, each.gaussian, each.grey, generator)
    return poisson_noise(image, each.poisson, each.grey, generator) if each.poisson else image


SETTINGS = tuple(each.name for each in fields(DegradationSettings))
