"""What can be said about a restoration preset before a picture is opened: its optimizer, its ranges, its files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from lora_trainer.config.reader import Loaded
from lora_trainer.config.restoration import RestorationPreset
from lora_trainer.data.degradation import SETTINGS, DegradationSettings
from lora_trainer.engine.optimizers import optimizer_problems
from lora_trainer.errors import Refusal
from lora_trainer.models.restoration.checkpoint import modules_and_rank, read_restorer
from lora_trainer.trainers.restoration.networks import LATENT_PX


def restoration_problems(loaded: Loaded) -> list[str]:
    """Every wrong option, each with its place in the file."""
    preset = loaded.preset
    assert isinstance(preset, RestorationPreset)
    found = [*_options(preset), *_sizes(preset), *_degradations(preset)]
    if not loaded.follows:
        found += _first_weights(preset)
    return [loaded.wrong(text, key) for key, text in found]


def degradation_settings(preset: RestorationPreset) -> DegradationSettings:
    """The preset's ranges; the names are the same."""
    return DegradationSettings(**{name: getattr(preset, name) for name in SETTINGS})


def _options(preset: RestorationPreset) -> Iterator[tuple[str, str]]:
    for problem in optimizer_problems(preset.optimizer_type, preset.optimizer_options):
        yield "opt_kwargs" if preset.opt_kwargs else "optimizer_type", problem


def _sizes(preset: RestorationPreset) -> Iterator[tuple[str, str]]:
    """Whether the degradations have anything left to work on; the least out_size is what the discriminator needs."""
    small = preset.out_size // preset.stage2_scale
    if preset.high_order_degradation and small < LATENT_PX:
        yield (
            "stage2_scale",
            f"squares of {preset.out_size} pixels would be degraded at {small}; write {preset.out_size // LATENT_PX} "
            "or less, or a larger out_size",
        )


def _degradations(preset: RestorationPreset) -> Iterator[tuple[str, str]]:
    if preset.high_order_degradation:
        for problem in degradation_settings(preset).validate():
            key, _, text = problem.partition(": ")
            yield (key, text) if text else ("high_order_degradation", problem)


def _first_weights(preset: RestorationPreset) -> Iterable[tuple[str, str]]:
    """Of weight_path, as far as the file tells by itself."""
    if not preset.weight_path:
        return
    path = Path(preset.weight_path)
    try:
        _, rank = modules_and_rank(path, read_restorer(path))
    except Refusal as refusal:
        yield from (("weight_path", problem) for problem in refusal.problems)
        return
    if rank != preset.lora_rank:
        text = f"the LoRA of {path} has the rank {rank}; set lora_rank to {rank}"
        yield "lora_rank", text
