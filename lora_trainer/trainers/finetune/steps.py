"""What the fine-tuning of a model and that of its VAE share: length, batches, the average, the files of a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lora_trainer.data.batches import largest_batch_step
from lora_trainer.engine.ema import Ema
from lora_trainer.engine.phase import Stateful
from lora_trainer.trainers.finetune.export import ModelFiles
from lora_trainer.trainers.finetune.job import FinetuneJob
from lora_trainer.trainers.finetune.pictures import write_epoch_schedule
from lora_trainer.trainers.job import FollowsJob


class FinetuneSteps(FollowsJob):
    """The part of engine.phase.Trainer that follows from the job."""

    job: FinetuneJob
    files: ModelFiles
    ema: Ema | None
    schedule_folder: Path | None  # where the files of write_schedule go

    @property
    def suffix(self) -> str:
        return self.files.suffix if self.files.single_files else ""

    @property
    def state(self) -> Mapping[str, Stateful]:
        return {"ema": self.ema} if self.ema is not None else {}

    @property
    def largest_step(self) -> int:
        return largest_batch_step(self.job.plan)

    def after_step(self, step: int) -> None:
        if self.ema is not None and (step + 1) % self.job.preset.ema_update_interval == 0:
            self.ema.update(step)

    def write_schedule(self, step: int) -> None:
        """At the first step of an epoch, its file."""
        plan = self.job.plan
        if self.schedule_folder is not None and step == plan.steps_before(epoch := plan.epoch_of(step)):
            write_epoch_schedule(self.schedule_folder, plan, epoch, self.job.pictures.trained.samples)
