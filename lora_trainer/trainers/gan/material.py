"""What the report of a GAN's training tells of it."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np

from lora_trainer.engine.run_facts import Counts, Material, Rows
from lora_trainer.trainers.gan.job import GanJob
from lora_trainer.trainers.material import bars, plural, thumbnails

USES: Rows = (
    ("Images", "python -m tools.generate {file} --seeds 0-15 --grid 4x4 --output images"),
    ("A video", "python -m tools.generate {file} --seeds 0-7 --video flight.mp4 --frames 60 --output images"),
    ("A longer training", "Raise kimg and give the same command: it goes on from the state that is kept at the end."),
)


def gan_material(job: GanJob) -> Material:
    preset, images = job.preset, job.images
    count = len(images.names)
    colours = "grey" if images.channels == 1 else "in colour"
    rows = [
        ("images", f"{plural(count, 'image')} of {images.resolution} px, {colours}"),
        ("mirrored", "half of what is shown" if images.mirror else "none"),
        ("length", f"{preset.kimg:g} thousand images, {preset.batch} a step"),
    ]
    if images.labels is not None:
        rows.append(("labels", images.labels.spoken))
    return Material(
        f"A GAN ({preset.cfg}) of {images.resolution} px, trained on {plural(count, 'image')}",
        tuple(rows),
        _classes(job),
        thumbnails([(name, partial(_pixels, job, number)) for number, name in enumerate(images.names)]),
        USES,
    )


def _pixels(job: GanJob, number: int) -> np.ndarray:
    pixels = np.ascontiguousarray(job.images.decoded(number).transpose(1, 2, 0))
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def _classes(job: GanJob) -> tuple[Counts, ...]:
    """How many images each class has."""
    labels = job.images.labels
    if labels is None or not labels.are_classes:
        return ()
    counted = Counter(labels.values.tolist())
    return bars("Classes, images", [(f"class {number}", count) for number, count in sorted(counted.items())])
