"""What a preset's metrics need, and what their numbers are called, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable

from lora_trainer.config.gan import GanPreset
from lora_trainer.errors import Refusal
from lora_trainer.losses.feature_networks import mark_of
from lora_trainer.trainers.gan.metric_table import GAN_METRICS, IMAGES, honest_name

TRACKED = "Metrics/"  # before the names, for the trackers


def network_problems(preset: GanPreset) -> Iterable[tuple[str, str]]:
    """Keys of the preset whose networks cannot be had, or whose metrics do not go with the generator, and why."""
    for name in preset.measured:
        if GAN_METRICS[name].moves_input and not preset.cfg.startswith("stylegan3"):
            yield "metrics", f"{name} moves the input of StyleGAN3, which {preset.cfg} has not; leave it out"
        if GAN_METRICS[name].mixes_ws and preset.cfg == "r3gan":
            yield "metrics", f"{name} goes from one w to another, and r3gan has no mapping network; leave it out"
    for key in preset.metric_networks:
        place = getattr(preset, key)
        try:
            mark_of(key, place)
        except Refusal as refusal:
            yield key, str(refusal).removeprefix(f"{key}: ")


def directions(preset: GanPreset) -> dict[str, bool]:
    """Whether higher is better, by the names that the numbers will have. Raises Refusal as `network_problems` tells."""
    marks = {key: mark_of(key, getattr(preset, key)) for key in preset.metric_networks}
    images = preset.metric_images or IMAGES
    return {
        TRACKED + honest_name(name, images, marks.get(GAN_METRICS[name].network, "")) + result: higher
        for name in preset.measured
        for result, higher in GAN_METRICS[name].results.items()
    }
