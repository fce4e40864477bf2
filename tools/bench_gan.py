"""Measure a GAN's training step against plain compositions of the same mathematics: CPU seconds a kimg, and memory.

python -m tools.bench_gan
The trainer's own phases run in alternation as they are and with three functions replaced: resampling by zeros that are
inserted, one convolution and samples left out; the leaky ReLU by what autograd makes of it; and R1 by one that derives
all weights too. `two passes` filters along one axis after the other and leaves R1 as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lora_trainer.config.reader import load_preset
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.step import Stepper
from lora_trainer.models.gan import (
    augmentation,
    discriminator,
    filtering,
    fully_connected,
    modulated_convolution,
    stylegan2,
    stylegan3,
)
from lora_trainer.models.gan.filtering import AxisPlan, Plan
from lora_trainer.models.gan.leaky_relu import GAIN, SLOPE
from lora_trainer.trainers.gan import phases
from lora_trainer.trainers.gan.build import build_gan
from lora_trainer.trainers.gan.job import inspect_gan
from lora_trainer.trainers.gan.trainer import GanTrainer

ROOT = Path(__file__).resolve().parents[1]
SEED, IMAGES = 1, 32
TOLERANCE = 1e-3  # of losses and norms of gradients, between ways that differ by rounding alone
RESAMPLING = (filtering, stylegan3, discriminator, modulated_convolution, augmentation)
BENDING = (stylegan2, stylegan3, discriminator, fully_connected)

Penalty = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Way:
    """`two_passes` None is the trainer as it is."""

    two_passes: bool | None = None
    derives_weights: bool = False


WAYS: Mapping[str, Way] = {
    "trainer": Way(),
    "two passes": Way(two_passes=True),
    "plain": Way(two_passes=False, derives_weights=True),
}


# -- the plain composition ---------------------------------------------------------------------------------------------


def plain_resample(x: Tensor, plan: Plan, two_passes: bool = False) -> Tensor:
    """What `filtering.resample` does, step by step: insert zeros, pad or crop, convolve, leave samples out."""
    parts = [_one_filter(x, vertical, horizontal, two_passes) for vertical, horizontal in plan.pairs]
    return functools.reduce(torch.add, parts)


def _one_filter(x: Tensor, vertical: AxisPlan, horizontal: AxisPlan, two_passes: bool) -> Tensor:
    """A convolution of each channel for itself: forty times faster on a CPU than of images of one channel."""
    count, channels, height, width = x.shape
    if vertical.up > 1 or horizontal.up > 1:
        spread = F.pad(
            x.reshape(count, channels, height, 1, width, 1), (0, horizontal.up - 1, 0, 0, 0, vertical.up - 1)
        )
        x = spread.view(count, channels, height * vertical.up, width * horizontal.up)
    x = F.pad(x, (*_padding(horizontal), *_padding(vertical)))
    column, row = (x.new_tensor(axis.taps[::-1]) for axis in (vertical, horizontal))
    kernels = [row[None], column[:, None]] if two_passes else [torch.outer(column, row)]
    for kernel in kernels:
        x = F.conv2d(x, kernel.expand(channels, 1, -1, -1), groups=channels)
    return x[:, :, :: vertical.down, :: horizontal.down]


def _padding(axis: AxisPlan) -> tuple[int, int]:
    """In front and behind, as many samples as the last output needs."""
    needed = (axis.out_size - 1) * axis.down + len(axis.taps)
    return axis.front, needed - axis.in_size * axis.up - axis.front


def plain_leaky_relu(x: Tensor, gain: float = GAIN, clamp: float | None = None, slope: float = SLOPE) -> Tensor:
    y = F.leaky_relu(x, slope)
    y = y if gain == 1 else y * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


def plain_r1(weights: Sequence[Tensor]) -> Penalty:
    """R1 whose first derivative reaches every weight as well, as `backward` does."""

    def penalty(real_logits: Tensor, images: Tensor, gamma: float) -> Tensor:
        gradient, *_ = torch.autograd.grad(real_logits.sum(), [images, *weights], create_graph=True, allow_unused=True)
        return gradient.square().flatten(1).sum(1) * (gamma / 2)

    return penalty


@contextlib.contextmanager
def composed(way: Way, trainer: GanTrainer) -> Iterator[None]:
    """Within it the networks and the penalty are those of the way."""
    with contextlib.ExitStack() as stack:
        if way.two_passes is not None:
            two_passes = way.two_passes
            for module in RESAMPLING:
                stack.enter_context(
                    mock.patch.object(module, "resample", lambda x, plan: plain_resample(x, plan, two_passes))
                )
            for module in BENDING:
                stack.enter_context(mock.patch.object(module, "leaky_relu", plain_leaky_relu))
        if way.derives_weights:
            weights = list(trainer.networks.discriminator.parameters())
            stack.enter_context(mock.patch.object(phases, "r1_penalty", plain_r1(weights)))
        yield


# -- a training of each way --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    cfg: str
    resolution: int
    batch: int
    cbase: int
    cmax: int


class Course:
    """A trainer with fresh weights, and its phases one by one. The step is one in which all are due."""

    def __init__(self, size: Size, way: Way, folder: Path) -> None:
        self.way, self.trainer = way, _trainer(size, folder)
        self._steppers = {
            phase.name: Stepper([phase], self.trainer.processes, Precision("no", "cpu"))
            for phase in self.trainer.phases
        }

    def run(self, phase: str) -> tuple[float, float]:
        """The loss and the norm of the gradient."""
        step = self.trainer.largest_step
        with composed(self.way, self.trainer):
            micros = self.trainer.prepare(step, self.trainer.data(step))
            values = self._steppers[phase].run(step, micros).values
        self.trainer.contest.tally.settle(self.trainer.processes.sum_)
        self.trainer.contest.path_mean.settle()
        return float(values["loss"]), float(values["grad_norm"])

    def every(self) -> dict[str, int]:
        """By the phase, every how many steps it runs."""
        return {phase.name: self.trainer.contest.lazy.get(phase.name, 1) for phase in self.trainer.phases}


def _trainer(size: Size, folder: Path) -> GanTrainer:
    preset = {
        "trainer": "gan", "cfg": size.cfg, "data": str(folder / "images"), "output_dir": str(folder / "output"),
        "seed": SEED, "batch": size.batch, "gamma": 0.1, "kimg": 1, "cbase": size.cbase, "cmax": size.cmax,
        "aug": "noaug", "workers": 0, "metrics": "none", "log_with": "none",
    }  # fmt: skip
    path = folder / "preset.json"
    path.write_text(json.dumps(preset), encoding="utf-8")
    job = inspect_gan(load_preset(path), 1, SEED)
    return build_gan(job, Processes(), Precision("no", "cpu"), dry=True)


def write_images(folder: Path, resolution: int) -> None:
    """Noise: what an image shows makes no step faster."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(SEED)
    for number in range(IMAGES):
        pixels = draw.integers(0, 256, (resolution, resolution, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")


# -- measuring ---------------------------------------------------------------------------------------------------------


def measure(size: Size, rounds: int, folder: Path) -> dict[str, dict[str, list[float]]]:
    """CPU seconds of each phase, by the way and the round. Raises ValueError where the ways do not give the same."""
    courses = {name: Course(size, way, folder) for name, way in WAYS.items()}
    phases = list(courses["trainer"].every())
    for phase in phases:
        found = {name: course.run(phase) for name, course in courses.items()}  # and warm
        for name, values in found.items():
            if not np.allclose(values, found["trainer"], rtol=TOLERANCE):
                raise ValueError(f"{size.cfg}, {phase}: {name} gives {values}, the trainer {found['trainer']}")
    seconds: dict[str, dict[str, list[float]]] = {name: {phase: [] for phase in phases} for name in WAYS}
    for _ in range(rounds):
        for phase in phases:
            for name, course in courses.items():
                began = time.process_time()
                course.run(phase)
                seconds[name][phase].append(time.process_time() - began)
    return seconds


def seconds_a_kimg(seconds: Mapping[str, Sequence[float]], every: Mapping[str, int], batch: int) -> list[float]:
    """Of each round."""
    rounds = zip(*seconds.values(), strict=True)
    return [sum(s / every[name] for name, s in zip(seconds, row, strict=True)) * 1000 / batch for row in rounds]


def memory_mib(size: Size, way: str) -> float:
    """What a step of all phases takes at its peak beside the networks, in a process of its own."""
    given = [f"--{key}={value}" for key, value in vars(size).items()]
    command = [sys.executable, "-m", "tools.bench_gan", f"--memory-of={way}", *given]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()[-1])


def _own_memory_mib(size: Size, way: str, folder: Path) -> float:
    course = Course(size, WAYS[way], folder)
    before = psutil.Process().memory_info().rss
    for _ in range(2):
        for phase in course.every():
            course.run(phase)
    return (_peak_bytes() - before) / 2**20


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


# -- the command -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    cfgs = options.cfg.split(",")
    sizes = [Size(cfg, options.resolution, options.batch, options.cbase, options.cmax) for cfg in cfgs]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images", options.resolution)
        if options.memory_of:
            print(_own_memory_mib(sizes[0], options.memory_of, folder))
            return 0
        for size in sizes:
            _tell(size, _rows(size, options.rounds, folder))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench_gan", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cfg", default="stylegan3-t,stylegan2", help="networks (default stylegan3-t,stylegan2)")
    parser.add_argument("--resolution", type=int, default=32, help="pixels (default 32)")
    parser.add_argument("--batch", type=int, default=8, help="images a step (default 8)")
    parser.add_argument("--cbase", type=int, default=1024, help="channels times resolution (default 1024)")
    parser.add_argument("--cmax", type=int, default=32, help="most channels (default 32)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each phase and way (default 5)")
    parser.add_argument("--memory-of", choices=list(WAYS), help="print the memory of one way alone, in MiB")
    return parser


def _rows(size: Size, rounds: int, folder: Path) -> list[dict[str, Any]]:
    seconds = measure(size, rounds, folder)
    every = Course(size, WAYS["trainer"], folder).every()
    kimgs = {name: seconds_a_kimg(seconds[name], every, size.batch) for name in WAYS}
    ours = statistics.median(kimgs["trainer"])
    return [
        {
            **vars(size), "way": name, "s_kimg": statistics.median(found), "least": min(found), "most": max(found),
            "ratio": statistics.median(found) / ours, "peak_mib": memory_mib(size, name),
            "phase_seconds": {phase: statistics.median(of) for phase, of in seconds[name].items()},
        }
        for name, found in kimgs.items()
    ]  # fmt: skip


def _tell(size: Size, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        print(json.dumps(row))
    print(f"{size.cfg}, {size.resolution} px, batch {size.batch}, cbase {size.cbase}, cmax {size.cmax}, one thread")
    print(f"{'':12}{'CPU s/kimg':>11}{'least':>9}{'most':>9}{'times':>7}{'MiB':>7}   CPU s of a phase")
    for row in rows:
        phases = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in row["phase_seconds"].items())
        numbers = f"{row['s_kimg']:11.1f}{row['least']:9.1f}{row['most']:9.1f}{row['ratio']:7.2f}{row['peak_mib']:7.0f}"
        print(f"{row['way']:12}{numbers}   {phases}")


if __name__ == "__main__":
    sys.exit(main())
