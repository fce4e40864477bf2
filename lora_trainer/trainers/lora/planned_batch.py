"""How many pictures in a pass the device holds, by the memory plan."""

from __future__ import annotations

import gc
from dataclasses import replace

import torch

from lora_trainer.config.reader import Loaded
from lora_trainer.engine.precision import choose_precision
from lora_trainer.engine.processes import Processes
from lora_trainer.trainers.diffusion.fit import UNMEASURED, USABLE, spoken
from lora_trainer.trainers.diffusion.ladder import room_bytes
from lora_trainer.trainers.diffusion.memory import Choices, DiffusionMemory
from lora_trainer.trainers.job import found_by_main
from lora_trainer.trainers.lora.job import inspect_lora
from lora_trainer.trainers.lora.plan import needed
from lora_trainer.trainers.lora.trainer import build_lora

MOST = 8  # more make a pass hardly faster, and an epoch short


def planned_batch(loaded: Loaded, processes: Processes) -> tuple[int, str, str]:
    """The number, what it needs, and the room for it, from the models with a batch of one; they are freed again."""
    job = found_by_main(processes, lambda: inspect_lora(loaded, processes.world, 1))
    precision, _ = choose_precision(job.mixed_precision, processes.device)
    memory, choices = needed(build_lora(job, processes, precision, dry=True))
    room = room_bytes(processes.device)
    size, needs, room = min(processes.gather([(*largest_that_fits(memory, choices, room), room)]))
    del memory
    gc.collect()
    if processes.device.type == "cuda":
        torch.cuda.empty_cache()
    return size, spoken(needs), spoken(room)


def largest_that_fits(memory: DiffusionMemory, choices: Choices, room: int) -> tuple[int, int]:
    """How many pictures, and the bytes that they need by the plan; 1 where nothing can be planned or nothing fits.

    `memory` is that of one picture. With a gradient_checkpointing of auto nothing is recomputed for a larger batch.
    """
    needs = 0
    for size in range(MOST, 0, -1):
        try:
            needs = memory.needs(replace(choices, share=float(size))).peak
        except UNMEASURED:
            return 1, 0
        if needs <= room * USABLE:
            return size, needs
    return 1, needs
