"""A GAN's training as far as it is known before a network is built: images, batches, length, files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.config.gan import GanPreset
from lora_trainer.config.gan_gamma import missing_gamma
from lora_trainer.config.gan_launch import launch_note, launch_problems
from lora_trainer.config.reader import Loaded
from lora_trainer.data.labelled_images import LabelledImages, survey_images
from lora_trainer.engine.cadence import Cadence
from lora_trainer.engine.console import counted
from lora_trainer.engine.kept_files import Keep, Names
from lora_trainer.engine.validation import NO_VALIDATION, Validation
from lora_trainer.errors import Refusal
from lora_trainer.models.gan.discriminator import freezable_layers
from lora_trainer.models.gan.table import R3GAN
from lora_trainer.models.weights_identity import weights_identity
from lora_trainer.trainers.gan.batches import Split
from lora_trainer.trainers.gan.metric_checks import directions, network_problems
from lora_trainer.trainers.job import Job, attempt

REPLACED = ("data", "resume", "batch_gpu", "mixed_precision", "fp32", "seed")  # whose content decides, not the spelling


@dataclass(frozen=True)
class SnapshotNames(Names):
    """network-snapshot-000200: the kimg that were done."""

    batch: int

    def after_epoch(self, name: str, epoch: int, done: int) -> str:
        return f"{name}-{kimg_label(done, self.batch)}"

    after_step = at_end = after_epoch


@dataclass(frozen=True)
class GanJob(Job):
    """The training's images."""

    preset: GanPreset
    images: LabelledImages

    @property
    def total_batch(self) -> int:
        return self.preset.batch

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.images) // self.preset.batch)

    @property
    def total_steps(self) -> int:
        return self.preset.total_steps

    @property
    def mixed_precision(self) -> str:
        """Of what surrounds the networks, which choose the precision of each layer themselves."""
        return "no"

    @property
    def names(self) -> Names:
        return SnapshotNames(self.preset.batch)

    @property
    def saves(self) -> Cadence:
        return Cadence(every_n_steps=self.preset.steps_per_snapshot)

    @property
    def keep(self) -> Keep:
        """The state at the end, so that a longer training can go on from it."""
        return Keep(state_at_end=True)

    @property
    def checkpoints(self) -> Cadence:
        """With each snapshot, unless the preset says after how many steps."""
        usual = super().checkpoints
        return Cadence(usual.every_n_epochs, usual.every_n_steps or self.preset.steps_per_snapshot)

    @property
    def previews(self) -> Cadence:
        return Cadence(every_n_steps=self.preset.steps_per_snapshot or self.total_steps)

    @property
    def previews_first(self) -> bool:
        return True

    @property
    def validation(self) -> Validation:
        if not self.preset.measured:
            return NO_VALIDATION
        cadence = Cadence(every_n_steps=self.preset.steps_per_snapshot)
        return Validation(cadence, directions(self.preset), together=True)

    @property
    def workers(self) -> int:
        return min(self.preset.workers, os.cpu_count() or 1)

    def split(self, rank: int) -> Split:
        """Which images of a batch a process takes."""
        return Split(self.preset.batch, rank, self.world, self.preset.images_per_pass(self.world))

    @property
    def spoken(self) -> str:
        """One line for the log."""
        images, preset = self.images, self.preset
        colours = {1: "gray ", 3: ""}[images.channels]
        labels = f", {images.labels.spoken}" if images.labels is not None else ""
        mirrored = ", half of them mirrored" if preset.mirror else ""
        return (
            f"{len(images)} {colours}images of {images.resolution} px{mirrored}{labels}; {preset.batch} a step, "
            f"{self.total_steps} steps are {preset.kimg:g} kimg"
        )


def kimg_label(done: int, batch: int) -> str:
    """What snapshots and sheets of images are numbered by."""
    return f"{done * batch // 1000:06d}"


def inspect_gan(loaded: Loaded, world: int, seed: int) -> GanJob:
    """Look at everything the preset names. Raises Refusal with all that is wrong."""
    preset = loaded.preset
    assert isinstance(preset, GanPreset)
    problems = [
        *(loaded.wrong(text, key) for key, text in launch_problems(preset, world)),
        *file_problems(loaded, preset),
    ]
    images = attempt(lambda: _looked_at(preset), problems) if Path(preset.data).exists() else None
    if images is not None:
        problems += size_problems(loaded, preset, images.resolution)
    if problems or images is None:
        raise Refusal(*problems)
    job = GanJob(preset, seed, world, {}, images)
    job.fingerprint.update(_fingerprint(loaded, job))
    return job


def check_gan(loaded: Loaded) -> None:
    """What can be said without opening an image. Raises Refusal."""
    preset = loaded.preset
    assert isinstance(preset, GanPreset)
    if problems := list(file_problems(loaded, preset)):
        raise Refusal(*problems)


def file_problems(loaded: Loaded, preset: GanPreset) -> Iterable[str]:
    """Data, snapshots and networks that are not where the preset says."""
    if not Path(preset.data).exists():
        yield loaded.wrong(f"{preset.data}: there is no such file or folder; correct the path", "data")
    if preset.resume and not loaded.follows and not Path(preset.resume).is_file():
        yield loaded.wrong(f"{preset.resume}: there is no such snapshot; correct the path", "resume")
    for key, text in network_problems(preset):
        yield loaded.wrong(text, key)


def size_problems(loaded: Loaded, preset: GanPreset, resolution: int) -> Iterable[str]:
    """What does not go with the size of the images."""
    if preset.gamma is None:
        yield loaded.wrong(missing_gamma(preset.cfg, resolution, preset.batch), "gamma")
    layers = freezable_layers(resolution)
    if preset.freezed and preset.cfg == R3GAN:
        yield loaded.wrong(f"found {preset.freezed}; r3gan has no layers that can be frozen; write 0", "freezed")
    elif preset.freezed > layers:
        text = f"the discriminator of {resolution} px has {layers} layers that can be frozen; write 0 to {layers}"
        yield loaded.wrong(f"found {preset.freezed}; {text}", "freezed")


def _looked_at(preset: GanPreset) -> LabelledImages:
    with counted("looking at the images", 1) as advance:
        return survey_images(Path(preset.data), cond=preset.cond, mirror=preset.mirror, progress=advance)


def launched(job: GanJob) -> str:
    """A remark on the number of processes, or nothing."""
    return launch_note(job.preset, job.world)


def _fingerprint(loaded: Loaded, job: GanJob) -> dict[str, Any]:
    """Everything that decides about the steps already made."""
    preset = job.preset
    facts = {key: value for key, value in loaded.steps_fingerprint().items() if key not in REPLACED}
    return facts | {
        "seed": job.seed,
        "images": job.images.digest,
        "number format": preset.number_format,
        "activations are bounded": preset.clamp is not None,
        "resume": weights_identity(Path(preset.resume)) if preset.resume else "",
    }
