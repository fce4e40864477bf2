"""Losses on their way from the device to the log, read one step late so that the host never waits for a step."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lora_trainer.engine.step import MEMBERS, StepResult

SMOOTHING = 0.98


@dataclass(frozen=True)
class Reading:
    """One step's numbers, on the host."""

    step: int
    values: Mapping[str, float]
    pictures: int
    suspects: Callable[[], list[str]]  # names of the pictures whose loss was not finite; asked by all processes
    rates: Mapping[str, float] | None  # given for the steps that are logged
    at: float  # when the host had finished with the step, by time.perf_counter()

    @property
    def finite(self) -> bool:
        return self.values["bad"] == 0.0


@dataclass
class _Pending:
    step: int
    names: Sequence[str]
    host: torch.Tensor
    event: torch.cuda.Event | None
    pictures: int
    suspects: Callable[[], list[str]]
    rates: Mapping[str, float] | None
    at: float


class Readings:
    """A queue of steps whose numbers are still being copied."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pending: deque[_Pending] = deque()

    def push(self, step: int, result: StepResult, rates: Mapping[str, float] | None) -> None:
        """Start copying the scalars of a step. On CUDA this returns at once."""
        stacked = torch.stack([value.detach().float().reshape(()) for value in result.values.values()])
        event = None
        if self.device.type == "cuda":
            host = torch.empty(stacked.shape, pin_memory=True)
            host.copy_(stacked, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        else:
            host = stacked.cpu()
        at = time.perf_counter()
        self._pending.append(
            _Pending(step, list(result.values), host, event, result.pictures, result.suspects, rates, at)
        )

    def pop(self, leave: int = 1) -> list[Reading]:
        """The readings of all but the last `leave` steps."""
        ready = []
        while len(self._pending) > leave:
            item = self._pending.popleft()
            if item.event is not None:
                item.event.synchronize()
            values = dict(zip(item.names, item.host.tolist(), strict=True))
            ready.append(Reading(item.step, values, item.pictures, item.suspects, item.rates, item.at))
        return ready


@dataclass
class Window:
    """Means over the steps since the last log line, and a smoothed loss. Its sums are part of a checkpoint, so that a
    resumed run logs the numbers of an undisturbed one."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    smoothed: float | None = None

    def add(self, reading: Reading) -> None:
        for name, value in reading.values.items():
            if name != "bad" and math.isfinite(value):
                self.sums[name] = self.sums.get(name, 0.0) + value
                self.counts[name] = self.counts.get(name, 0) + 1
        loss = reading.values.get("loss")
        if loss is None:  # a step in which the first phase rested
            return
        self.smoothed = loss if self.smoothed is None else SMOOTHING * self.smoothed + (1 - SMOOTHING) * loss

    def take(self) -> dict[str, float]:
        """The means, of parts over their members where there were any, and begin a new window."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        for size in [name for name in means if name.endswith(MEMBERS)]:
            name, members = size.removesuffix(MEMBERS), means.pop(size)
            total = means.pop(name, 0.0)
            if members > 0:
                means[name] = total / members
        self.sums, self.counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "counts": dict(self.counts), "smoothed": self.smoothed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums, self.counts, self.smoothed = dict(state["sums"]), dict(state["counts"]), state["smoothed"]


class Speed:
    """Pictures a second since the last log line, without the time spent on saving and previews.

    Measured by when the host had finished with a step, not by when its numbers were read.
    """

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._pictures = 0
        self._excluded = 0.0

    def add(self, pictures: int) -> None:
        self._pictures += pictures

    def exclude(self, seconds: float) -> None:
        self._excluded += seconds

    def take(self, at: float) -> float:
        """The speed up to the moment `at` of `time.perf_counter()`; then a new measurement begins."""
        busy = max(1e-9, at - self._since - self._excluded)
        speed = self._pictures / busy
        self._since, self._pictures, self._excluded = at, 0, 0.0
        return speed


def memory_gib(device: torch.device) -> float:
    """The peak of the device's memory, or on a CPU what this process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**30
