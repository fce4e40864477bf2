"""What can be said about a super-resolution preset before a picture is opened: names and options of its parts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lora_trainer.config.kinds import Component
from lora_trainer.config.problems import one_of, shown
from lora_trainer.config.reader import Loaded
from lora_trainer.config.super_resolution import GAN_LOSS, SuperResolutionPreset
from lora_trainer.data.degradation import SETTINGS, DegradationSettings
from lora_trainer.engine.optimizers import optimizer_problems
from lora_trainer.engine.schedules import schedule_problems
from lora_trainer.errors import did_you_mean
from lora_trainer.losses.adversarial import GAN_TYPES
from lora_trainer.losses.image_losses import IMAGE_LOSSES
from lora_trainer.models.discriminators.table import check_discriminator_options, check_size
from lora_trainer.models.sr_networks import check_network_options
from lora_trainer.trainers.super_resolution.metrics import METRICS

GAN_OPTIONS = {"loss_weight": 0.1, "gan_type": "vanilla", "real_label_val": 1.0, "fake_label_val": 0.0}


def part_problems(loaded: Loaded) -> list[str]:
    """Every wrong name or option of networks, losses, optimizers, schedule, metrics and degradations."""
    preset = loaded.preset
    assert isinstance(preset, SuperResolutionPreset)
    return [
        *_networks(loaded, preset),
        *_losses(loaded, preset),
        *_optimizers(loaded, preset),
        *_metrics(loaded, preset),
        *_degradations(loaded, preset),
    ]


def option_problems(options: Mapping[str, object], known: Iterable[str]) -> dict[str, str]:
    """A sentence for each option that is not known."""
    known = list(known)
    return {
        name: f"no option here; there is {one_of(known)}{did_you_mean(name, known)}" if known else "takes no options"
        for name in options
        if name not in known
    }


def parameters(build: Callable[..., Any]) -> list[str]:
    """The keyword parameters of a function or class."""
    return [name for name in inspect.signature(build).parameters if name != "self"]


def degradation_settings(preset: SuperResolutionPreset) -> DegradationSettings:
    """The preset's ranges; the names are the same."""
    return DegradationSettings(**{name: getattr(preset, name) for name in SETTINGS})


def _networks(loaded: Loaded, preset: SuperResolutionPreset) -> Iterable[str]:
    for problem in check_network_options(preset.network_g.type, preset.network_g.options, preset.scale):
        yield loaded.wrong(problem.text, "network_g", *problem.path, as_key=problem.path not in ((), ("type",)))
    if preset.gan_loss is None or not preset.network_d.type:
        return
    for text in check_discriminator_options(preset.network_d.type, preset.network_d.options):
        yield loaded.wrong(text, "network_d")
    if text := check_size(preset.network_d.type, preset.network_d.options, preset.gt_px):
        yield loaded.wrong(text, "network_d")


def _losses(loaded: Loaded, preset: SuperResolutionPreset) -> Iterable[str]:
    for index, loss in enumerate(preset.losses):
        name = loss.type.casefold()
        if name == GAN_LOSS:
            known = list(GAN_OPTIONS)
            if str(loss.options.get("gan_type", "vanilla")) not in GAN_TYPES:
                text = f"found {shown(loss.options['gan_type'])}; write {one_of(GAN_TYPES)}"
                yield loaded.wrong(text, "losses", index, "gan_type")
        elif name in IMAGE_LOSSES:
            known = ["loss_weight", *parameters(IMAGE_LOSSES[name])]
        else:
            names = [*IMAGE_LOSSES, GAN_LOSS]
            text = f"there is no loss {loss.type}; there is {one_of(names)}{did_you_mean(name, names)}"
            yield loaded.wrong(text, "losses", index, "type")
            continue
        for option, text in option_problems(loss.options, known).items():
            yield loaded.wrong(f"{loss.type} has {text}", "losses", index, option, as_key=True)
    if sum(loss.type.casefold() == GAN_LOSS for loss in preset.active_losses) > 1:
        yield loaded.wrong("there is more than one ganloss with a weight; keep one", "losses")


def _optimizers(loaded: Loaded, preset: SuperResolutionPreset) -> Iterable[str]:
    for key in ("optim_g", "optim_d") if preset.gan_loss is not None else ("optim_g",):
        part: Component = getattr(preset, key)
        options = {name: value for name, value in part.options.items() if name != "lr"}
        rate = part.options.get("lr")
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float)) or rate < 0):
            yield loaded.wrong(f"found {shown(rate)}; write a number from 0 upwards", key, "lr")
        for problem in optimizer_problems(part.type, options):
            yield loaded.wrong(problem, key)
    for problem in schedule_problems(preset.scheduler.type, preset.scheduler.options):
        yield loaded.wrong(problem, "scheduler")


def _metrics(loaded: Loaded, preset: SuperResolutionPreset) -> Iterable[str]:
    if not (preset.validates and preset.metrics_enabled):
        return
    for name, metric in preset.metrics:
        kind = metric.type.casefold()
        if kind not in METRICS:
            text = f"there is no metric {metric.type}; there is {one_of(METRICS)}{did_you_mean(kind, METRICS)}"
            yield loaded.wrong(text, "metrics", name, "type")
            continue
        for option, text in option_problems(metric.options, ["better", *METRICS[kind].options]).items():
            yield loaded.wrong(f"{metric.type} has {text}", "metrics", name, option, as_key=True)


def _degradations(loaded: Loaded, preset: SuperResolutionPreset) -> Iterable[str]:
    if preset.high_order_degradation:
        for problem in degradation_settings(preset).validate():
            key, _, text = problem.partition(": ")
            yield loaded.wrong(text or problem, key if text else "high_order_degradation")
