"""The learning rate over time, as pure functions of the step: `rate = base * schedule(step)`.

`make_schedule` has the curves of transformers and diffusers (`get_scheduler`), which kohya's and EveryDream2's presets
name; `torch_schedule` has the schedulers of torch.optim.lr_scheduler, BasicSR and traiNNer-redux.
"""

from __future__ import annotations

import array
import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lora_trainer.engine.torch_schedules import CLOSED_FORMS, Run
from lora_trainer.errors import Refusal, did_you_mean

Schedule = Callable[[int], float]

POLYNOMIAL_END = 1e-7  # the rate, not a factor, at which "polynomial" ends in diffusers
TIMESCALE = 10_000  # of "inverse_sqrt" without a warm-up


@dataclass(frozen=True)
class Curve:
    """What the curves depend on; all in optimizer steps."""

    total_steps: int
    warmup_steps: int = 0
    num_cycles: float = 1
    power: float = 1.0
    base_rate: float = 1.0
    min_ratio: float = 0.0  # what is left at the end of cosine_with_min_lr and warmup_stable_decay
    decay_steps: int = 0  # of warmup_stable_decay, at the end
    timescale: int = 0  # of inverse_sqrt; 0: the warm-up
    step_rules: str = ""  # of piecewise_constant: "1:1000,0.1:2000,0.01" is 0.1 from step 1000 on and 0.01 from 2000

    def warmup(self, step: int) -> float | None:
        """The factor while the rate still rises from zero, or None after that."""
        return step / self.warmup_steps if step < self.warmup_steps else None

    def progress(self, step: int) -> float:
        """How much of the time after the warm-up has passed, 0 to 1."""
        return min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))


def constant(curve: Curve, step: int) -> float:
    return 1.0


def linear(curve: Curve, step: int) -> float:
    return 1.0 - curve.progress(step)


def cosine(curve: Curve, step: int) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * curve.progress(step)))


def cosine_with_restarts(curve: Curve, step: int) -> float:
    progress = curve.progress(step)
    if progress >= 1.0:
        return 0.0
    return 0.5 * (1.0 + math.cos(math.pi * ((curve.num_cycles * progress) % 1.0)))


def polynomial(curve: Curve, step: int) -> float:
    """From the base rate to 1e-7 along (1 - progress) ** power; power 1 is a line."""
    end = min(1.0, POLYNOMIAL_END / curve.base_rate)
    return float((1.0 - end) * (1.0 - curve.progress(step)) ** curve.power + end)


def cosine_with_min_lr(curve: Curve, step: int) -> float:
    """num_cycles half cosines without a jump between them, down to the smallest rate and up again."""
    wave = 0.5 * (1.0 + math.cos(math.pi * curve.num_cycles * curve.progress(step)))
    return wave * (1.0 - curve.min_ratio) + curve.min_ratio


def inverse_sqrt(curve: Curve, step: int) -> float:
    timescale = curve.timescale or curve.warmup_steps or TIMESCALE
    return 1.0 / math.sqrt((step - curve.warmup_steps + timescale) / timescale)


def warmup_stable_decay(curve: Curve, step: int) -> float:
    """The full rate, and half cosines over the last decay_steps."""
    start = curve.total_steps - curve.decay_steps
    if step < start:
        return 1.0
    if step >= curve.total_steps:
        return curve.min_ratio
    wave = 0.5 * (1.0 + math.cos(math.pi * curve.num_cycles * (step - start) / curve.decay_steps))
    return wave * (1.0 - curve.min_ratio) + curve.min_ratio


def piecewise_constant(curve: Curve, step: int) -> float:
    *rules, last = curve.step_rules.split(",")
    for factor, _, end in sorted((rule.partition(":") for rule in rules), key=lambda parts: int(parts[2])):
        if step < int(end):
            return float(factor)
    return float(last or 1.0)


SCHEDULES: dict[str, Callable[[Curve, int], float]] = {
    "constant": constant,
    "constant_with_warmup": constant,
    "linear": linear,
    "cosine": cosine,
    "cosine_with_restarts": cosine_with_restarts,
    "polynomial": polynomial,
    "cosine_with_min_lr": cosine_with_min_lr,
    "inverse_sqrt": inverse_sqrt,
    "warmup_stable_decay": warmup_stable_decay,
    "piecewise_constant": piecewise_constant,
    "adafactor": constant,  # its optimizer finds the rate itself
}


def unchanged(step: int) -> float:
    """The schedule of a rate that stays as it is."""
    return 1.0


def make_schedule(name: str, curve: Curve) -> Schedule:
    """The factor on the base rate for the optimizer step `step`, counted from 0. KeyError for an unknown name."""
    shape = SCHEDULES[name]
    lowest = curve.min_ratio if shape is warmup_stable_decay else 0.0  # where transformers lets the warm-up begin

    def schedule(step: int) -> float:
        rising = curve.warmup(step)
        return shape(curve, step) if rising is None else rising * (1.0 - lowest) + lowest

    return schedule


def torch_schedule(
    name: str, options: Mapping[str, Any], base_rate: float, total_steps: int, warmup_steps: int = 0
) -> Schedule:
    """A scheduler of torch.optim.lr_scheduler, BasicSR or traiNNer-redux by name, or any by its path, as a function.

    The step's factor is that of the scheduler stepped so many times, as PyTorch does after each optimizer step: with
    a milestone at 1000, the step with the index 1000 is the first at the lower rate. In the first `warmup_steps` the
    rate rises on a line to what the scheduler gives there: step 0 has 1 / warmup_steps of it. Raises Refusal.
    """
    shape = _shape(name, options, Run(base_rate, total_steps))
    if warmup_steps <= 0:
        return shape
    return lambda step: shape(step) * min(1.0, (step + 1) / warmup_steps)


def schedule_problems(name: str, options: Mapping[str, Any]) -> list[str]:
    """What is wrong with a scheduler's name and options."""
    try:
        shape = _shape(name, options, Run(1e-4, 1000))
        for step in (0, 1, 999, 1000):
            shape(step)
    except Refusal as refusal:
        return list(refusal.problems)
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        return [f'the scheduler "{name}" does not accept {dict(options)}: {error}']
    return []


def scheduler_names() -> list[str]:
    return list(CLOSED_FORMS)


def _shape(name: str, options: Mapping[str, Any], run: Run) -> Schedule:
    closed = {known.casefold(): form for known, form in CLOSED_FORMS.items()}.get(name.casefold())
    found = closed or _scheduler_class(name)
    parameters = inspect.signature(found).parameters
    known = [word for word in parameters if word not in ("run", "optimizer", "last_epoch", "verbose")]
    missing = [word for word in known if parameters[word].default is inspect.Parameter.empty and word not in options]
    problems = [
        f'the scheduler "{name}" does not accept {option}; it takes {", ".join(known)}{did_you_mean(option, known)}'
        for option in options
        if option not in known
    ]
    if missing:
        problems.append(f'the scheduler "{name}" needs {", ".join(missing)}')
    if problems:
        raise Refusal(*problems)
    try:
        return closed(run, **options) if closed is not None else _Stepped(found, options, run)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise Refusal(f'the scheduler "{name}" does not accept {dict(options)}: {error}') from error


NOT_POSSIBLE = {
    "reducelronplateau": "follows a measured value, so that a resumed run would not be the same; take another",
    "lambdalr": "takes a Python function, which a preset cannot hold; take another",
    "multiplicativelr": "takes a Python function, which a preset cannot hold; take another",
    "sequentiallr": "takes other schedulers, which a preset cannot hold; take another",
    "chainedscheduler": "takes other schedulers, which a preset cannot hold; take another",
}


def _scheduler_class(name: str) -> type[torch.optim.lr_scheduler.LRScheduler]:
    """A class by its dotted path, or one that PyTorch has and CLOSED_FORMS does not. Raises Refusal."""
    module_name, _, last = name.rpartition(".")
    if last.casefold() in NOT_POSSIBLE:
        raise Refusal(f'the scheduler "{name}" {NOT_POSSIBLE[last.casefold()]}')
    module: Any = torch.optim.lr_scheduler
    if module_name:
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise Refusal(f'the scheduler "{name}" does not load: {error}') from error
    by_folded = {each.casefold(): getattr(module, each) for each in dir(module)}
    found = getattr(module, last, None) or by_folded.get(last.casefold())
    base = torch.optim.lr_scheduler.LRScheduler
    if not (inspect.isclass(found) and issubclass(found, base) and found is not base):
        raise Refusal(
            f'there is no scheduler "{name}"; there is {", ".join(CLOSED_FORMS)}, and any class by its path '
            f"(package.module.Class){did_you_mean(name, CLOSED_FORMS)}"
        )
    return found


class _Stepped:
    """The factors of any PyTorch scheduler, found by stepping it once and kept: 8 bytes a step."""

    def __init__(self, kind: Callable[..., Any], options: Mapping[str, Any], run: Run) -> None:
        self._base_rate = run.base_rate or 1.0
        self._optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=self._base_rate)
        self._scheduler = kind(self._optimizer, **options)
        self._factors = array.array("d", [self._now()])

    def _now(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"]) / self._base_rate

    def __call__(self, step: int) -> float:
        while len(self._factors) <= step:
            self._optimizer.step()
            try:
                self._scheduler.step()
            except ValueError:  # some end with their steps; the rate stays
                return self._factors[-1]
            self._factors.append(self._now())
        return self._factors[step]
