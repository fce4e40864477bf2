"""gradient_checkpointing as the preset says it, and what auto makes of it: the lowest rung that the device holds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import psutil
import torch
from torch import nn

from lora_trainer.engine.phase import Phase
from lora_trainer.engine.plan import moved
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.recomputation import RUNGS, Rung, SparingFeedForward
from lora_trainer.trainers.diffusion.base import forget_activations
from lora_trainer.trainers.diffusion.fit import UNMEASURED, USABLE, spoken
from lora_trainer.trainers.diffusion.memory import Choices, DiffusionMemory

log = logging.getLogger(__name__)

WORDS: dict[Rung, str] = {"nothing": "false", "geglu": "geglu", "feed_forward": "feed_forward", "everything": "true"}


def first_rung(value: bool | str) -> Rung:
    """Of the key's value; auto begins at the bottom."""
    for rung, word in WORDS.items():
        if word == str(value).lower():
            return rung
    return "nothing"


def rung_of(unet: nn.Module) -> Rung:
    """What this UNet forgets."""
    if getattr(unet, "is_gradient_checkpointing", False):
        return "everything"
    return next((layer.rung for layer in unet.modules() if isinstance(layer, SparingFeedForward)), "nothing")


def climb(
    base: BaseModel, phase: Phase, memory: DiffusionMemory, choices: Choices, processes: Processes, precision: Precision
) -> Rung:
    """Choose by the plan, try the largest batch on a GPU, and go up while that does not fit. All processes agree."""
    room = room_bytes(processes.device)
    rung, needed = processes.from_main(lowest_that_fits(memory, choices, room) if processes.is_main else (RUNGS[-1], 0))
    forget_activations(base, rung)
    while rung != RUNGS[-1] and processes.any(not _holds(phase, memory.batch, processes, precision)):
        rung, needed = RUNGS[RUNGS.index(rung) + 1], 0
        forget_activations(base, rung)
    seen = f"about {spoken(needed)} of {spoken(room)}" if needed else "by a trial step"
    log.info("gradient_checkpointing auto: %s (%s)", WORDS[rung], seen)
    return rung


def lowest_that_fits(memory: DiffusionMemory, choices: Choices, room: int) -> tuple[Rung, int]:
    """The rung, and the bytes that it needs by the plan; where nothing can be planned, or nothing fits, the highest."""
    needed = 0
    for rung in RUNGS:
        try:
            needed = memory.needs(replace(choices, rung=rung)).peak
        except UNMEASURED:
            return RUNGS[-1], 0
        if needed <= room * USABLE:
            return rung, needed
    return RUNGS[-1], needed


def room_bytes(device: torch.device) -> int:
    """What this process has and can still get of the device's memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    return int(psutil.virtual_memory().available + psutil.Process().memory_info().rss)


def _holds(phase: Phase, batch: Mapping[str, Any], processes: Processes, precision: Precision) -> bool:
    """Whether forward and backward pass of the largest batch fit a GPU; weights and optimizer stay as they are."""
    if processes.device.type != "cuda":
        return True
    return _fits(lambda: _pass(phase, batch, processes.device, precision))


def _fits(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except torch.OutOfMemoryError:
        fits = False
    else:
        fits = True
    torch.cuda.empty_cache()  # out of the except block, whose traceback holds what was allocated
    return fits


def _pass(phase: Phase, batch: Mapping[str, Any], device: torch.device, precision: Precision) -> None:
    micro = {key: moved(value, device) for key, value in batch.items()}
    try:
        with phase.collecting_gradients(0):
            with precision.autocast():
                losses = phase.loss(phase.module, micro)
            losses.per_sample.float().sum().backward()  # type: ignore[no-untyped-call]
    finally:
        for weight in phase.weights.values():
            weight.grad = None
