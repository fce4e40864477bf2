"""The file that tells which picture was in which step: ep9_batch_schedule.txt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_trainer.data.buckets import Size
from lora_trainer.data.everydream.epochs import EpochBatch


def schedule_name(epoch: int) -> str:
    """The file's name; epochs count from 0, as in the log."""
    return f"ep{epoch}_batch_schedule.txt"


def schedule_text(batches: Sequence[EpochBatch], paths: Sequence[Path], buckets: Sequence[Size]) -> str:
    """A line for each use of a picture: the step of the epoch, [width, height], how many pictures of a batch that was
    filled are no duplicates (0: it was not filled), and the picture."""
    lines = []
    for step, batch in enumerate(batches):
        for item in batch.items:
            height, width = buckets[item]
            lines.append(f"step:{step:05}, wh:[{width}, {height}], r:{batch.real}, path:{paths[item]}\n")
    return "".join(lines)
