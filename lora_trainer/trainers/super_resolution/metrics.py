"""What validation measures, by traiNNer-redux's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lora_trainer.config.kinds import Component
from lora_trainer.losses import image_quality

Measure = Callable[[Tensor, Tensor], Tensor]  # pictures (b, 3, h, w) from 0 to 1, their originals -> (b,)


@dataclass(frozen=True)
class Metric:
    """`make(**options)` gives the measure; what needs a network loads it once there."""

    make: Callable[..., Measure]
    options: tuple[str, ...]
    higher_is_better: bool


def _cropped(function: Callable[..., Tensor]) -> Callable[..., Measure]:
    def make(crop_border: int = 0, test_y_channel: bool = False) -> Measure:
        return lambda image, target: function(image, target, crop_border, test_y_channel)

    return make


def _perceptual(name: str) -> Callable[..., Measure]:
    def make(**options: Any) -> Measure:
        from lora_trainer.losses import deep_similarity

        network = getattr(deep_similarity, name)(**options)
        return lambda image, target: network(image, target)

    return make


CROPPED = ("crop_border", "test_y_channel")
METRICS: Mapping[str, Metric] = {
    "calculate_psnr": Metric(_cropped(image_quality.psnr), CROPPED, True),
    "calculate_ssim": Metric(_cropped(image_quality.ssim), CROPPED, True),
    "calculate_ms_ssim": Metric(_cropped(image_quality.ms_ssim), CROPPED, True),
    "calculate_lpips": Metric(_perceptual("Lpips"), ("weights",), False),
    "calculate_dists": Metric(_perceptual("Dists"), ("weights",), False),
}


def make_measures(metrics: tuple[tuple[str, Component], ...]) -> dict[str, Measure]:
    """By the names that the preset gives them. Raises Refusal when a network's weights cannot be had."""
    found = {}
    for name, metric in metrics:
        options = {key: value for key, value in metric.options.items() if key != "better"}
        found[name] = METRICS[metric.type.casefold()].make(**options)
    return found


def directions(metrics: tuple[tuple[str, Component], ...]) -> dict[str, bool]:
    """Whether higher is better, by the preset's names."""
    return {name: METRICS[metric.type.casefold()].higher_is_better for name, metric in metrics}
