"""Whether a diffusion training fits a card, and by which of a preset's keys it would need less."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch

from lora_trainer.errors import Refusal
from lora_trainer.models.recomputation import RUNGS, Rung
from lora_trainer.trainers.diffusion.memory import GIB, Choices, DiffusionMemory, Needs, Owner

CARDS_GIB = (8, 12, 16, 24, 32, 48, 80)
USABLE = 0.96  # of what a card is sold with: its own share, and a screen
LITTLE = GIB // 10  # a saving that is not worth a word
UNMEASURED = (NotImplementedError, RuntimeError, TypeError, ValueError, AttributeError)

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Measure:
    """Something a person can set in order to need less memory."""

    words: str
    change: Callable[[Choices], Choices]


def rung_measures() -> Iterator[Measure]:
    """Those of gradient_checkpointing, each with the rung above the last one."""
    for word, rung in (("geglu", "geglu"), ("feed_forward", "feed_forward"), ("true", "everything")):
        yield Measure(f"gradient_checkpointing {word}", partial(_on_rung, rung=cast(Rung, rung)))


def _on_rung(choices: Choices, rung: Rung) -> Choices:
    return replace(choices, rung=max(choices.rung, rung, key=RUNGS.index))


def memory_rows(
    memory: DiffusionMemory, choices: Choices, measures: Sequence[Measure], card_bytes: int | None = None
) -> Rows:
    """Rows of a dry run: each component, and whether all of it fits a card of this size, or else which cards."""
    try:
        needs = memory.needs(choices)
        forgets = choices.rung != "nothing"
        other = memory.needs(replace(choices, rung="nothing" if forgets else "everything"))
    except UNMEASURED as error:  # layers of other packages that PyTorch cannot run without numbers
        first = str(error).strip().partition("\n")[0]
        return [("memory", f"is not known before the trial step: {type(error).__name__}: {first}")]
    word = "without" if forgets else "with"
    parts = []
    for name, size in needs.components.items():
        aside = f" ({word} gradient checkpointing {spoken(other.components[name])})" if name == "activations" else ""
        parts.append(f"{name} {spoken(size)}{aside}")
    steps = list(_steps(memory, choices, measures, needs.peak))
    verdict = _for_card(needs, steps, card_bytes) if card_bytes else _for_cards(needs, steps)
    return [("memory", ", ".join(parts)), ("at the most", verdict)]


def spoken(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 2 else f"{size / 2**20:.1f} MiB"


def card_bytes(device: torch.device) -> int | None:
    """The memory of this GPU; None on a CPU."""
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None


def other_optimizer(name: str) -> Callable[[Choices], Choices]:
    """All weights in the hands of optimizers of this kind with their usual options."""
    return lambda choices: replace(choices, owners=[Owner(name, {}, owner.weights) for owner in choices.owners])


@dataclass(frozen=True)
class _Step:
    words: str
    saved: int
    peak: int  # with all steps up to this one


def _steps(memory: DiffusionMemory, choices: Choices, measures: Sequence[Measure], peak: int) -> Iterator[_Step]:
    """Those of the measures that save something, each after the ones before it."""
    for measure in measures:
        changed = measure.change(choices)
        try:
            less = memory.needs(changed).peak
        except Refusal:  # an optimizer whose package is not installed
            continue
        if peak - less >= LITTLE:
            yield _Step(measure.words, peak - less, less)
            choices, peak = changed, less


def _for_card(needs: Needs, steps: Sequence[_Step], card_bytes: int) -> str:
    start = f"about {_gib(needs.peak)} of the card's {_gib(card_bytes)}"
    if needs.peak <= card_bytes:
        return f"{start}: fits"
    taken = []
    for step in steps:
        taken.append(step)
        if step.peak <= card_bytes:
            break
    if not taken:
        return f"{start}: does not fit; no key would make it less"
    end = "fits" if taken[-1].peak <= card_bytes else "does not fit either"
    return f"{start}: does not fit. {_list(taken)}: {_gib(taken[-1].peak)}, which {end}"


def _for_cards(needs: Needs, steps: Sequence[_Step]) -> str:
    fitting = [size for size in CARDS_GIB if needs.peak <= size * GIB * USABLE]
    smaller = [size for size in CARDS_GIB if size not in fitting]
    text = f"about {_gib(needs.peak)}: "
    text += f"would fit cards of {fitting[0]} GiB and more" if fitting else f"would fit no card of {CARDS_GIB[-1]} GiB"
    if fitting and smaller:
        text += f", not of {smaller[-1]} GiB"
    return f"{text}. {_list(steps)}: {_gib(steps[-1].peak)}" if smaller and steps else text


def _list(steps: Sequence[_Step]) -> str:
    return ", then ".join(
        f"{step.words} {'would save ' if step is steps[0] else ''}{_gib(step.saved)}" for step in steps
    )


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
