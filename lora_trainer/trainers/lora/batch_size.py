"""train_batch_size auto: as many pictures in a pass as the device holds, and the same number when a run goes on."""

from __future__ import annotations

import logging
from dataclasses import replace

from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.reader import Loaded
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.resume import fingerprint_of
from lora_trainer.engine.run_folder import RunFolder

log = logging.getLogger(__name__)

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
        from lora_trainer.trainers.lora.planned_batch import planned_batch  # which loads diffusers

        size, needs, room = planned_batch(_with(loaded, 1), processes)
        log.info("train_batch_size auto: %d (about %s of %s)", size, needs, room)
    return _with(loaded, size)


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
