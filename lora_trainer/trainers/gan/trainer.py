"""The GAN trainer: a generator and a discriminator, their penalties every few steps, and the averaged generator."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lora_trainer.config.gan import GanPreset
from lora_trainer.engine.phase import Batch, DrawnPicture, Phase, Stateful
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.run_folder import cut_rows
from lora_trainer.models.gan.augmentation_strength import FixedStrength
from lora_trainer.models.gan.snapshot import save_snapshot
from lora_trainer.trainers.gan.average import HalfLifeAverage
from lora_trainer.trainers.gan.batches import GanBatches
from lora_trainer.trainers.gan.course import Course
from lora_trainer.trainers.gan.job import GanJob, kimg_label
from lora_trainer.trainers.gan.metrics import GanMetrics
from lora_trainer.trainers.gan.networks import Networks
from lora_trainer.trainers.gan.phases import REAL_SIGNS, Contest
from lora_trainer.trainers.gan.sheets import FIRST_FAKES, REALS, Sheet
from lora_trainer.trainers.gan.ticks import STATS, Ticks
from lora_trainer.trainers.job import FollowsJob

log = logging.getLogger(__name__)


@dataclass
class GanTrainer(FollowsJob):
    """What the loop runs (engine.phase.Trainer)."""

    job: GanJob
    processes: Processes
    networks: Networks
    phases: Sequence[Phase]
    data: GanBatches
    contest: Contest
    ema: HalfLifeAverage
    strength: FixedStrength
    fixed_strength: Course
    ticks: Ticks
    metrics: GanMetrics | None
    sheet: Sheet
    suffix: str = ".safetensors"
    largest_step: int = 0  # all phases are due in it
    _begun: bool = field(default=False, init=False)

    @property
    def preset(self) -> GanPreset:
        return self.job.preset

    @property
    def folder(self) -> Path:
        return Path(self.preset.output_dir)

    @property
    def state(self) -> Mapping[str, Stateful]:
        parts: dict[str, Any] = {
            "ema": self.ema,
            "augmentation": self.strength,
            "path mean": self.contest.path_mean,
            "tally": self.contest.tally,
            "ticks": self.ticks,
        }
        return parts

    def prepare(self, step: int, micros: list[Batch]) -> list[Batch]:
        """Images from -1 to 1."""
        self.ticks.begin_step()
        if self.preset.aug == "fixed":
            self.strength.p = self.fixed_strength(step)
        return [{**micro, "images": as_images(micro["images"])} for micro in micros]

    def after_step(self, step: int) -> Mapping[str, float] | None:
        """The average, the strength of augmentation, and at the end of a tick its line."""
        if not self._begun:
            self._begin(step)
        sums = self.contest.tally.settle(self.processes.sum_)
        self.contest.path_mean.settle()
        self.ema.update(step)
        in_force = self.strength.p
        self.strength.count(sums[REAL_SIGNS][:2].flip(0))  # the sum, then the number
        if self.strength.is_due(step + 1):
            self.strength.update(self.total_batch)
        if not self.ticks.ends(step + 1):
            return None
        return self.ticks.tell(step + 1, self.contest.tally.take(), in_force)

    def export(self, stem: Path, done: int) -> Path:
        """Both networks and the average."""
        path = stem.with_name(stem.name + self.suffix)
        generator, discriminator = self.networks.generator, self.networks.discriminator
        states = {"G": generator.state_dict(), "D": discriminator.state_dict(), "G_ema": self.ema.weights()}
        facts = {"kimg": done * self.total_batch / 1000, "augment_p": self.strength.p}
        save_snapshot(path, self.preset.cfg, states, self.networks.options | facts)
        return path

    def preview(self, folder: Path, label: str, done: int) -> Sequence[DrawnPicture]:
        """The sheet of fakes, and before the first step that of real images."""
        if done == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.sheet.write_reals(self.folder / REALS, self.job.images)
        path = self.folder / (f"fakes{kimg_label(done, self.total_batch)}.png" if done else FIRST_FAKES)
        with self.ema.swapped():
            self.sheet.write_fakes(path, self.networks.generator, self.preset.images_per_pass(self.processes.world))
        return (DrawnPicture("fakes", path),)

    def validate(self, folder: Path, label: str, done: int) -> Mapping[str, float]:
        """The numbers of the averaged generator, in all processes together."""
        if self.metrics is None:
            return {}
        snapshot = self.job.names.after_step(self.preset.output_name, 0, done) + self.suffix
        with self.ema.swapped():
            return self.metrics.measure(self.networks.generator, done, snapshot)

    def _begin(self, step: int) -> None:
        """Before anything is written of steps that this process makes."""
        self._begun = True
        if self.processes.is_main:
            for file in (self.folder / STATS, *self.folder.glob("metric-*.jsonl")):
                cut_rows(file, step)


def as_images(pixels: Tensor) -> Tensor:
    """uint8 -> float32 from -1 to 1."""
    return pixels.float() / 127.5 - 1
