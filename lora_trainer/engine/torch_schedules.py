"""PyTorch's learning rate schedulers, and those of BasicSR and traiNNer-redux, as functions of the step.

A scheduler's factor at a step is what it gives after so many calls of its `step()`. In closed form it needs no
state, so that a resumed run of a million steps is at its place at once. What each function takes beside the run are
the scheduler's own options with its own defaults; what a run knows (T_max, total_steps) may be left out.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lora_trainer.config.problems import one_of

Factor = Callable[[int], float]


@dataclass(frozen=True)
class Run:
    """What PyTorch's schedulers learn of the run: rates among their options are not factors."""

    base_rate: float
    total_steps: int

    def factor(self, rate: float) -> float:
        return rate / self.base_rate if self.base_rate else 0.0


def _whole(key: str, values: Sequence[int]) -> list[int]:
    if isinstance(values, str) or not all(isinstance(value, int) and value >= 0 for value in values):
        raise ValueError(f"{key} must be a list of whole numbers")
    return list(values)


def _no_momentum(cycled: bool) -> None:
    if cycled:
        raise ValueError("a schedule changes the rate only, so cycle_momentum must be false")


def _constant(run: Run, *, factor: float = 1 / 3, total_iters: int = 5) -> Factor:
    return lambda step: factor if step < total_iters else 1.0


def _linear(run: Run, *, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5) -> Factor:
    return lambda step: start_factor + (end_factor - start_factor) * min(1.0, step / total_iters)


def _polynomial(run: Run, *, total_iters: int | None = None, power: float = 1.0) -> Factor:
    steps = run.total_steps if total_iters is None else total_iters
    return lambda step: max(0.0, 1.0 - step / steps) ** power


def _step(run: Run, *, step_size: int, gamma: float = 0.1) -> Factor:
    return lambda step: gamma ** (step // step_size)


def _multi_step(run: Run, *, milestones: Sequence[int], gamma: float = 0.1) -> Factor:
    ordered = sorted(_whole("milestones", milestones))
    return lambda step: gamma ** bisect.bisect_right(ordered, step)


def _exponential(run: Run, *, gamma: float) -> Factor:
    return lambda step: gamma**step


def _half_cosine(share: float, least: float) -> float:
    return least + (1.0 - least) * 0.5 * (1.0 + math.cos(math.pi * share))


def _cosine(run: Run, *, T_max: int | None = None, eta_min: float = 0.0) -> Factor:  # noqa: N803
    least, half = run.factor(eta_min), run.total_steps if T_max is None else T_max
    return lambda step: _half_cosine(step / half, least)


def _warm_restarts(run: Run, *, T_0: int, T_mult: int = 1, eta_min: float = 0.0) -> Factor:  # noqa: N803
    if T_0 < 1 or T_mult < 1:
        raise ValueError("T_0 and T_mult must be whole numbers from 1")
    least = run.factor(eta_min)

    def factor(step: int) -> float:
        length = T_0
        if T_mult == 1:
            step %= length
        while step >= length:
            step, length = step - length, length * T_mult
        return _half_cosine(step / length, least)

    return factor


def _cyclic(
    run: Run,
    *,
    base_lr: float,
    max_lr: float,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
    cycle_momentum: bool = False,
) -> Factor:
    _no_momentum(cycle_momentum)
    if mode not in ("triangular", "triangular2", "exp_range"):
        raise ValueError("mode must be triangular, triangular2 or exp_range")
    length = step_size_up + (step_size_up if step_size_down is None else step_size_down)

    def factor(step: int) -> float:
        cycle, inside = divmod(step, length)
        height = inside / step_size_up if inside <= step_size_up else (length - inside) / (length - step_size_up)
        scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": gamma**step}[mode]
        return run.factor(base_lr + (max_lr - base_lr) * height * scale)

    return factor


def _one_cycle(
    run: Run,
    *,
    max_lr: float | None = None,
    total_steps: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
    cycle_momentum: bool = False,
) -> Factor:
    _no_momentum(cycle_momentum)
    if anneal_strategy not in ("cos", "linear"):
        raise ValueError("anneal_strategy must be cos or linear")
    steps, top = total_steps or run.total_steps, 1.0 if max_lr is None else run.factor(max_lr)
    low = top / div_factor
    knots = [(0.0, low), (pct_start * steps - 1, top)]
    if three_phase:
        knots.append((2 * pct_start * steps - 2, low))
    knots.append((float(steps - 1), low / final_div_factor))

    def factor(step: int) -> float:
        for (begin, first), (end, last) in itertools.pairwise(knots):
            if step <= end:
                share = (step - begin) / (end - begin or 1.0)
                return first + (last - first) * (share if anneal_strategy == "linear" else 1 - _half_cosine(share, 0))
        return knots[-1][1]

    return factor


def _cosine_restarts(
    run: Run, *, periods: Sequence[int], restart_weights: Sequence[float] | None = None, eta_min: float = 0.0
) -> Factor:
    """BasicSR's: cosines of the given lengths, each from its weight to eta_min, where the last one ends."""
    weights = [1.0] * len(periods) if restart_weights is None else [float(each) for each in restart_weights]
    if not periods or len(weights) != len(periods):
        raise ValueError(f"{len(periods)} periods and {len(weights)} restart_weights; give each period its weight")
    lengths, least = _whole("periods", periods), run.factor(eta_min)
    ends = list(itertools.accumulate(lengths))

    def factor(step: int) -> float:
        step = min(step, ends[-1])
        index = bisect.bisect_left(ends, step)
        share = 1.0 - (ends[index] - step) / lengths[index]
        return least + weights[index] * (_half_cosine(share, least) - least)

    return factor


def _cosine_after_warmup(
    run: Run, *, total_iters: int | None = None, warmup_iters: int = 0, eta_min_ratio: float = 0.1
) -> Factor:
    """traiNNer-redux's CosineAnnealingWarmupLR."""
    steps = run.total_steps if total_iters is None else total_iters

    def factor(step: int) -> float:
        if step < warmup_iters:
            return step / warmup_iters
        return _half_cosine(min(1.0, (step - warmup_iters) / max(1, steps - warmup_iters)), eta_min_ratio)

    return factor


def _knee(
    run: Run, *, peak_lr: float | None = None, total_steps: int | None = None, explore_ratio: float = 0.5
) -> Factor:
    """The full rate for a share of the steps, then a line to 0 (Iyer et al. 2020)."""
    steps, peak = total_steps or run.total_steps, 1.0 if peak_lr is None else run.factor(peak_lr)
    explore = int(steps * explore_ratio)
    if not 0 <= explore_ratio <= 1:
        raise ValueError("explore_ratio must be from 0 to 1")
    return lambda step: peak * min(1.0, max(0.0, (steps - step - 1) / max(1, steps - explore)))


def _stable_decay(
    run: Run,
    *,
    total_iters: int | None = None,
    warmup_iters: int = 0,
    decay_iters: int | None = None,
    min_ratio: float = 0.0,
    decay_type: str = "cosine",
) -> Factor:
    """Warm-up, a stable part and a decay over the last decay_iters, a tenth of all steps."""
    shapes: dict[str, Callable[[float], float]] = {
        "cosine": lambda share: _half_cosine(share, 0.0),
        "linear": lambda share: 1.0 - share,
        "1-sqrt": lambda share: 1.0 - math.sqrt(share),
    }
    if decay_type not in shapes:
        raise ValueError(f"decay_type must be {one_of(shapes)}")
    steps = run.total_steps if total_iters is None else total_iters
    decay = steps // 10 if decay_iters is None else decay_iters

    def factor(step: int) -> float:
        if step < warmup_iters:
            return (step + 1) / warmup_iters
        share = 0.0 if step < steps - decay else min(1.0, (step - steps + decay) / max(1, decay))
        return min_ratio + (1.0 - min_ratio) * shapes[decay_type](share)

    return factor


CLOSED_FORMS: dict[str, Callable[..., Factor]] = {
    "MultiStepLR": _multi_step,
    "CosineAnnealingLR": _cosine,
    "CosineAnnealingRestartLR": _cosine_restarts,
    "CosineAnnealingWarmRestarts": _warm_restarts,
    "CosineAnnealingWarmupLR": _cosine_after_warmup,
    "ConstantLR": _constant,
    "CyclicLR": _cyclic,
    "ExponentialLR": _exponential,
    "KneeLR": _knee,
    "LinearLR": _linear,
    "OneCycleLR": _one_cycle,
    "PolynomialLR": _polynomial,
    "StepLR": _step,
    "WSD": _stable_decay,
}
