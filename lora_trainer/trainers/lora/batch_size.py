"""train_batch_size auto: as many pictures in a pass as the device holds, and the same number when a run goes on."""

from __future__ import annotations

import gc
import logging
from dataclasses import replace

import torch

from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.reader import Loaded
from lora_trainer.engine.precision import choose_precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.resume import fingerprint_of
from lora_trainer.engine.run_folder import RunFolder
from lora_trainer.trainers.diffusion.fit import UNMEASURED, USABLE, spoken
from lora_trainer.trainers.diffusion.ladder import room_bytes
from lora_trainer.trainers.diffusion.memory import Choices, DiffusionMemory
from lora_trainer.trainers.job import found_by_main
from lora_trainer.trainers.lora.job import inspect_lora
from lora_trainer.trainers.lora.plan import needed
from lora_trainer.trainers.lora.trainer import build_lora

log = logging.getLogger(__name__)

MOST = 8  # more make a pass hardly faster, and an epoch short
PICTURES = "pictures per step"  # of all processes and passes, in a fingerprint


def settle_lora(loaded: Loaded, processes: Processes, folder: RunFolder, restart: bool) -> Loaded:
    """The preset with a number in place of auto: the run's own where it goes on, else what fits. Every process must
    call it. Raises Refusal for what is wrong with the model and the pictures."""
    preset = loaded.preset
    assert isinstance(preset, LoraPreset)
    if preset.train_batch_size != "auto":
        return loaded
    size = processes.from_main(0 if restart else _earlier(folder, preset, processes.world))
    if size:
        log.info("train_batch_size auto: %d, as before", size)
    else:
        size, needs, room = _planned(_with(loaded, 1), processes)
        log.info("train_batch_size auto: %d (about %s of %s)", size, spoken(needs), spoken(room))
    return _with(loaded, size)


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


def _planned(loaded: Loaded, processes: Processes) -> tuple[int, int, int]:
    """The number, what it needs, and the room for it, from the models with a batch of one; they are freed again."""
    job = found_by_main(processes, lambda: inspect_lora(loaded, processes.world, 1))
    precision, _ = choose_precision(job.mixed_precision, processes.device)
    memory, choices = needed(build_lora(job, processes, precision, dry=True))
    room = room_bytes(processes.device)
    found = min(processes.gather([(*largest_that_fits(memory, choices, room), room)]))
    del memory
    gc.collect()
    if processes.device.type == "cuda":
        torch.cuda.empty_cache()
    return found


def _earlier(folder: RunFolder, preset: LoraPreset, world: int) -> int:
    """What the run that is to go on was made with; 0 without one, or if it cannot be had with these processes."""
    pictures = fingerprint_of(folder).get(PICTURES)
    if not isinstance(pictures, int):
        return 0
    size, rest = divmod(pictures, world * preset.gradient_accumulation_steps)
    return 0 if rest else size


def _with(loaded: Loaded, size: int) -> Loaded:
    assert isinstance(loaded.preset, LoraPreset)
    return replace(loaded, preset=replace(loaded.preset, train_batch_size=size))
