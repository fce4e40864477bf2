"""What a step of a training takes: time, the host's share of it, memory, FLOPs; and several ways of training in turn.

Used by the benches. A way is a function that gets everything ready and gives a `Course`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lora_trainer.engine.phase import Batch, Trainer
from lora_trainer.engine.plan import moved
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.step import Stepper

GIB = 2**30
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_PEAK = "5"  # proc(5): the highest memory so far becomes the present one


@dataclass(frozen=True)
class Course:
    """A way that is ready to run. `data` is the host's work for the next step, `step` trains on what it gives.

    `first` are numbers of a first step on a batch that all ways share, in which those that have one must agree.
    """

    data: Callable[[], Any]
    step: Callable[[Any], object]
    first: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Taken:
    """Seconds of each round, those of them in which the host prepared or called, and GiB at the peak of a step.

    Memory is beside what stays between steps; `kept_gib` is what stays. None is unknown.
    """

    seconds: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    peak_gib: float | None = None
    kept_gib: float | None = None


# -- ways in turn ------------------------------------------------------------------------------------------------------


def in_turn(
    ways: Mapping[str, Callable[[], Course]],
    rounds: int,
    device: torch.device,
    *,
    tolerance: float,
    one_by_one: bool = False,
) -> dict[str, Taken]:
    """Steps of the ways in alternation, so that what slows the machine down slows all of them.

    `one_by_one` is for ways that do not fit into memory together: each is opened, runs all its rounds, and goes. Raises
    ValueError where a way does not compute what the first one does.
    """
    found: dict[str, Taken] = {}
    first: dict[str, float] = {}
    for names in [[name] for name in ways] if one_by_one else [list(ways)]:
        give_back()
        found |= _together({name: ways[name] for name in names}, rounds, device, first, tolerance)
    give_back()
    return found


def _together(
    ways: Mapping[str, Callable[[], Course]],
    rounds: int,
    device: torch.device,
    first: dict[str, float],
    tolerance: float,
) -> dict[str, Taken]:
    """`first` is what the ways before these gave, and is filled by the very first one."""
    found: dict[str, Taken] = {}
    courses: dict[str, Course] = {}
    for name, opened in ways.items():
        before = kept_bytes(device)
        course = courses[name] = opened()
        first.update({} if first else course.first)
        check_agreement(name, course.first, first, tolerance)
        found[name] = Taken(peak_gib=peak_gib(partial(_whole, course), device))
        if before is not None:
            found[name].kept_gib = ((kept_bytes(device) or 0) - before) / GIB
    for _ in range(rounds):
        for name, course in courses.items():
            seconds, host = timed(course, device)
            found[name].seconds.append(seconds)
            found[name].host.append(host)
    return found


def check_agreement(name: str, found: Mapping[str, float], wanted: Mapping[str, float], tolerance: float) -> None:
    """Raises ValueError where a number that both have differs by more than this share."""
    for key in found.keys() & wanted.keys():
        if not math.isclose(found[key], wanted[key], rel_tol=tolerance):
            raise ValueError(
                f"{name}: {key} is {found[key]:.6g}, of the first way {wanted[key]:.6g}, on the same batch"
            )


def course_of(trainer: Trainer, processes: Processes, precision: Precision) -> Course:
    """What the loop does with a trainer in a step, without logs."""
    stepper = Stepper(trainer.phases, processes, precision)
    numbers = itertools.count()

    def data() -> tuple[int, list[Batch]]:
        number = next(numbers)
        return number, [placed(micro, processes.device) for micro in trainer.data(number)]

    def step(given: tuple[int, list[Batch]]) -> Mapping[str, Tensor]:
        number, micros = given
        values = stepper.run(number, trainer.prepare(number, micros)).values
        trainer.after_step(number)
        return values

    values = step(data())
    names = [name for name in values if name.rpartition("/")[2] in ("loss", "grad_norm")]
    return Course(data, step, {name: float(values[name]) for name in names})


def placed(micro: Mapping[str, Any], device: torch.device) -> Batch:
    return {key: moved(value, device) for key, value in micro.items()}


# -- time --------------------------------------------------------------------------------------------------------------


def timed(course: Course, device: torch.device) -> tuple[float, float]:
    """Seconds of a step, and the host's: to prepare its data, and on a GPU until its call returns, which is the host's
    own work as long as the device's queue is not full."""
    clock = clock_of(device)
    wait(device)
    began = clock()
    given = course.data()
    prepared = clock()
    course.step(given)
    returned = clock()
    wait(device)
    return clock() - began, (returned if device.type != "cpu" else prepared) - began


def seconds_of(step: Callable[[], object], device: torch.device) -> float:
    return timed(Course(lambda: None, lambda _: step()), device)[0]


def clock_of(device: torch.device) -> Callable[[], float]:
    """On one thread of a CPU the process's own time, so that other work counts little; else the clock on the wall."""
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _whole(course: Course) -> None:
    course.step(course.data())


# -- memory ------------------------------------------------------------------------------------------------------------


def peak_gib(step: Callable[[], object], device: torch.device) -> float | None:
    """What a step takes at its peak beside what lies there already, whoever keeps it; None where nothing tells."""
    give_back()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / GIB
    try:
        RESET.write_text(FORGET_PEAK, encoding="ascii")
        before = _status_bytes("VmRSS")
    except OSError:  # no Linux, or one that does not let a process ask
        step()
        return None
    step()
    return max(0, _status_bytes("VmHWM") - before) / GIB


def kept_bytes(device: torch.device) -> int | None:
    """What is allocated; None on a CPU, where memory that was freed is not told from memory in use."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else None


def give_back() -> None:
    """Memory that nothing uses any more, to the device and to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(key: str) -> int:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024


# -- arithmetic --------------------------------------------------------------------------------------------------------


def flops_of(step: Callable[[], object]) -> int:
    """As PyTorch counts them: matrix products, convolutions, attention; with what is computed again."""
    with _Counter() as counter:
        step()
    return counter.total


def flops_on_meta(networks: Sequence[nn.Module], trained: Iterable[Tensor], run: Callable[[], Tensor]) -> int:
    """Of a forward pass, which `run` makes and sums up, and its backward pass, without computing any of it.

    Within, weights and buffers of the networks are float32 on the meta device, and those of `trained` get gradients.
    """
    learning = {id(weight) for weight in trained}
    whole = _Whole(networks)
    state = {
        name: torch.empty_like(tensor, device="meta", dtype=_wide(tensor)).requires_grad_(id(tensor) in learning)
        for name, tensor in (*whole.named_parameters(), *whole.named_buffers())
    }
    with mock.patch.object(torch, "autocast", _no_autocast):  # which refuses the device, even to be switched off
        return flops_of(lambda: torch.func.functional_call(whole, state, (run,)))


def on_meta(batch: Mapping[str, Any]) -> Batch:
    """For `flops_on_meta`: floating numbers become float32."""
    return {
        key: value.to("meta", _wide(value)) if torch.is_tensor(value) else moved(value, torch.device("meta"))
        for key, value in batch.items()
    }


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """What a large matrix product attains here, a second."""
    side = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    found = [seconds_of(lambda: a @ b, device) for _ in range(5)]
    return float(2 * side**3 / min(found))


class _Counter(TorchDispatchMode):
    """PyTorch's own FlopCounterMode hangs on modules as well, and then no gradient may be taken within a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=result))
        return result


class _Whole(nn.Module):
    """Networks as one, whose weights are replaced while something runs."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, run: Callable[[], Tensor]) -> None:
        run().backward()  # type: ignore[no-untyped-call]


def _no_autocast(*arguments: Any, **options: Any) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.is_floating_point() else tensor.dtype
