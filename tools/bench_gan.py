"""Measure a GAN's training step against plain compositions of the same mathematics, in the same run.

python -m tools.bench_gan --cfg stylegan3-t
The trainer's own phases run in alternation as they are and with three functions replaced: resampling by zeros that are
inserted, one convolution and samples left out; the leaky ReLU by what autograd makes of it; and R1 by one that derives
all weights too. `two passes` filters along one axis after the other and leaves R1 as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lora_trainer.config.reader import load_preset
from lora_trainer.engine.phase import Batch
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
from lora_trainer.models.gan.fused_filtering import fused_filtered_leaky_relu
from lora_trainer.models.gan.leaky_relu import GAIN, SLOPE
from lora_trainer.trainers.gan import phases
from lora_trainer.trainers.gan.build import build_gan
from lora_trainer.trainers.gan.job import inspect_gan
from lora_trainer.trainers.gan.trainer import GanTrainer
from tools.benches.lines import (
    COLUMNS,
    Column,
    Machine,
    Parser,
    Row,
    add_names,
    machine_of,
    parser_of,
    rows_of,
    run_bench,
    tell,
)
from tools.benches.measuring import Course, Taken, check_agreement, flops_of, peak_flops, peak_gib, placed, timed

SEED, IMAGES = 1, 32
TOLERANCE, OF_HALVES = 1e-3, 0.05  # of losses and norms of gradients; layers are in half precision on a GPU alone
RESAMPLING = (filtering, stylegan3, discriminator, modulated_convolution, augmentation)
BENDING = (stylegan2, stylegan3, discriminator, fully_connected)

Penalty = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Way:
    """`two_passes` None is the trainer as it is. `keys` are of its preset."""

    two_passes: bool | None = None
    derives_weights: bool = False
    keys: Mapping[str, Any] = field(default_factory=dict)


BASELINE, TRAINER, FUSED = "plain", "trainer", "trainer, fused_filtered_lrelu"
WAYS: Mapping[str, Way] = {
    BASELINE: Way(two_passes=False, derives_weights=True),
    "two passes": Way(two_passes=True),
    TRAINER: Way(),
    FUSED: Way(keys={"fused_filtered_lrelu": True}),
}
CFGS = ("stylegan3-t", "stylegan3-r", "stylegan2")


def ways_of(setting: Setting) -> dict[str, Way]:
    """Those that the device and the networks have."""
    fuses = setting.machine.device.type == "cuda" and setting.cfg.startswith("stylegan3")
    return {name: way for name, way in WAYS.items() if fuses or not way.keys}


# -- the plain composition ---------------------------------------------------------------------------------------------


def plain_resample(x: Tensor, plan: Plan, two_passes: bool = False) -> Tensor:
    """What `filtering.resample` does, step by step: insert zeros, pad or crop, convolve, leave samples out."""
    parts = [_one_filter(x, vertical, horizontal, two_passes) for vertical, horizontal in plan.pairs]
    return reduce(torch.add, parts)


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
    """In pixels, and channels: at most `cmax`, and at most `cbase` divided by the resolution of a layer."""

    resolution: int
    cbase: int
    cmax: int


SIZES: Mapping[str, Size] = {
    "tiny": Size(32, 1024, 32),
    "mid": Size(64, 4096, 128),
    "full": Size(256, 32768, 512),
}


@dataclass(frozen=True)
class Setting:
    """What all ways have in common. Images lie in the folder."""

    cfg: str
    size: Size
    batch: int
    machine: Machine
    folder: Path


class Training:
    """A trainer with fresh weights, and its phases one by one. The step is one in which all are due."""

    def __init__(self, setting: Setting, way: Way) -> None:
        self.way, self.trainer, self.device = way, _trainer(setting, way.keys), setting.machine.device
        self._steppers = {
            phase.name: Stepper([phase], self.trainer.processes, setting.machine.precision)
            for phase in self.trainer.phases
        }

    @property
    def is_what_it_says(self) -> bool:
        """False where the trainer has warned that it goes on without the kernel."""
        layers = self.trainer.networks.generator.modules()
        fused = any(getattr(layer, "bend", None) is fused_filtered_leaky_relu for layer in layers)
        return fused or not self.way.keys

    def data(self) -> list[Batch]:
        return [placed(micro, self.device) for micro in self.trainer.data(self.trainer.largest_step)]

    def run(self, phase: str, data: list[Batch]) -> dict[str, float]:
        """The loss and the norm of the gradient."""
        step = self.trainer.largest_step
        with composed(self.way, self.trainer):
            values = self._steppers[phase].run(step, self.trainer.prepare(step, data)).values
        self.trainer.contest.tally.settle(self.trainer.processes.sum_)
        self.trainer.contest.path_mean.settle()
        return {key: float(values[key]) for key in ("loss", "grad_norm")}

    def course(self, phase: str) -> Course:
        return Course(self.data, lambda data: self.run(phase, data))

    def every(self) -> dict[str, int]:
        """By the phase, every how many steps it runs."""
        return {phase.name: self.trainer.contest.lazy.get(phase.name, 1) for phase in self.trainer.phases}


def _trainer(setting: Setting, keys: Mapping[str, Any]) -> GanTrainer:
    size, folder = setting.size, setting.folder
    preset = {
        "trainer": "gan", "cfg": setting.cfg, "data": str(folder / "images"), "output_dir": str(folder / "output"),
        "seed": SEED, "batch": setting.batch, "gamma": 0.1, "kimg": 1, "cbase": size.cbase, "cmax": size.cmax,
        "aug": "noaug", "workers": 0, "metrics": "none", "log_with": "none",
        **keys,
    }  # fmt: skip
    path = folder / "preset.json"
    path.write_text(json.dumps(preset), encoding="utf-8")
    job = inspect_gan(load_preset(path), 1, SEED)
    return build_gan(job, setting.machine.processes, setting.machine.precision, dry=True)


def write_images(folder: Path, resolution: int) -> None:
    """Noise: what an image shows makes no step faster."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(SEED)
    for number in range(IMAGES):
        pixels = draw.integers(0, 256, (resolution, resolution, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")


# -- measuring ---------------------------------------------------------------------------------------------------------


def measure(setting: Setting, rounds: int) -> tuple[dict[str, Taken], dict[str, dict[str, float]]]:
    """What a step takes on the average of all steps, by the way, and the median seconds of each phase. Raises
    ValueError where the ways do not give the same."""
    trainings = {name: Training(setting, way) for name, way in ways_of(setting).items()}
    trainings = {name: training for name, training in trainings.items() if training.is_what_it_says}
    every = trainings[TRAINER].every()
    for phase in every:
        _agree(trainings, phase)
    device = setting.machine.device
    found = {name: Taken(peak_gib=_peak_gib(training, every, device)) for name, training in trainings.items()}
    seconds: dict[str, dict[str, list[float]]] = {name: {phase: [] for phase in every} for name in trainings}
    host: dict[str, dict[str, list[float]]] = {name: {phase: [] for phase in every} for name in trainings}
    for _ in range(rounds):
        for phase in every:
            for name, training in trainings.items():
                whole, own = timed(training.course(phase), device)
                seconds[name][phase].append(whole)
                host[name][phase].append(own)
    for name, taken in found.items():
        taken.seconds, taken.host = of_a_step(seconds[name], every), of_a_step(host[name], every)
    return found, {
        name: {phase: statistics.median(each) for phase, each in seconds[name].items()} for name in trainings
    }


def _agree(trainings: Mapping[str, Training], phase: str) -> None:
    """Runs the phase of all ways once, which warms up. Raises ValueError where they do not give the same."""
    found = {name: _once(training, phase) for name, training in trainings.items()}
    for name, values in found.items():
        tolerance = TOLERANCE if trainings[name].device.type == "cpu" else OF_HALVES
        check_agreement(f"{name}, phase {phase}", values, found[BASELINE], tolerance)


def _peak_gib(training: Training, phases: Iterable[str], device: torch.device) -> float | None:
    """Of the phase that needs most."""
    peaks = [peak_gib(partial(_once, training, phase), device) for phase in phases]
    return max((peak for peak in peaks if peak is not None), default=None)


def _once(training: Training, phase: str) -> dict[str, float]:
    return training.run(phase, training.data())


def of_a_step(seconds: Mapping[str, Sequence[float]], every: Mapping[str, int]) -> list[float]:
    """Of each round, all phases together, each for the share of the steps in which it runs."""
    rounds = zip(*seconds.values(), strict=True)
    return [sum(each / every[name] for name, each in zip(seconds, row, strict=True)) for row in rounds]


def flops(setting: Setting) -> int:
    """Of a step of the trainer, on the average. They are counted while it runs: R1 derives what the loss did."""
    training = Training(setting, WAYS[TRAINER])
    return round(sum(flops_of(partial(_once, training, phase)) / n for phase, n in training.every().items()))


# -- the command -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    return run_bench(_bench, _parser(), arguments)


def _parser() -> Parser:
    parser = parser_of("bench_gan", __doc__, SIZES, batch=8, rounds=5)
    add_names(parser, "--cfg", CFGS, "stylegan3-t,stylegan2", "networks")
    return parser


def _bench(options: argparse.Namespace) -> None:
    machine = machine_of(options)
    for name in options.size:
        with tempfile.TemporaryDirectory() as folder:
            size = SIZES[name]
            write_images(Path(folder) / "images", size.resolution)
            for cfg in options.cfg:
                setting = Setting(cfg, size, options.batch, machine, Path(folder))
                rows = rows_in(setting, name, options.rounds)
                what = f"{size.resolution} px, cbase {size.cbase}, cmax {size.cmax}"
                tell(rows, f"{cfg}, {name} ({what}), batch {options.batch}, {machine.device}", (KIMG, *COLUMNS, PHASES))


def rows_in(setting: Setting, size: str, rounds: int) -> list[Row]:
    machine = setting.machine
    taken, phases = measure(setting, rounds)
    facts = {
        "bench": "gan", "cfg": setting.cfg, "size": size, "precision": machine.precision.name,
        "device": str(machine.device),
    }  # fmt: skip
    peak = peak_flops(machine.device, machine.precision.dtype)
    rows = rows_of(facts, taken, BASELINE, batch=setting.batch, flops=flops(setting), peak=peak)
    return [
        {**row, "s_kimg": 1000 / row["images_per_second"], "phase_seconds": phases[row["way"]]}
        for row in rows
    ]  # fmt: skip


def _spoken_phases(row: Row) -> str:
    return ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in row["phase_seconds"].items())


KIMG: Column = ("s/kimg", lambda row: f"{row['s_kimg']:.1f}")
PHASES: Column = ("s of a phase", _spoken_phases)


if __name__ == "__main__":
    sys.exit(main())
