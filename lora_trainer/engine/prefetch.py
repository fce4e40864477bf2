"""The next steps' batches, prepared beside the training and moved to the device without waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from lora_trainer.engine.phase import Batch, Data
from lora_trainer.engine.signals import ignore_interrupts, unheard_by_children

DEPTH = 2  # steps in flight for each loader process


class Steps(Dataset[list[Batch]]):
    """The steps `first` to `last - 1` as a data set: an element is the list of a step's micro-batches."""

    def __init__(self, data: Data, first: int, last: int) -> None:
        self.data = data
        self.first = first
        self.last = last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> list[Batch]:
        return self.data(self.first + index)


def prefetch(data: Data, first: int, last: int, device: torch.device, workers: int) -> Iterator[list[Batch]]:
    """The micro-batches of each step on the device, in order. The number of workers changes nothing but the speed."""
    source = _from_processes(data, first, last, workers) if workers else _from_thread(data, first, last)
    pin = device.type == "cuda"
    try:
        for micros in source:
            yield [_to_device(micro, device, pin) for micro in micros]
    finally:
        source.close()


def _from_processes(data: Data, first: int, last: int, workers: int) -> Generator[list[Batch], None, None]:
    loader = DataLoader(
        Steps(data, first, last),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=DEPTH,
        multiprocessing_context="spawn",  # the only way on Windows, and the only safe one beside CUDA
        worker_init_fn=ignore_interrupts,
        generator=torch.Generator(),  # without one, the loader would draw from the global generator
    )
    with unheard_by_children():
        steps = iter(loader)  # starts the processes
    yield from steps


def _from_thread(data: Data, first: int, last: int) -> Generator[list[Batch], None, None]:
    """One thread ahead of the loop: noise and captions cost a few milliseconds that a GPU should not wait for."""
    with ThreadPoolExecutor(1, "prefetch") as pool:
        ahead = deque(pool.submit(data, step) for step in range(first, min(first + DEPTH, last)))
        try:
            for step in range(first, last):
                micros = ahead.popleft().result()
                if step + DEPTH < last:
                    ahead.append(pool.submit(data, step + DEPTH))
                yield micros
        finally:
            pool.shutdown(cancel_futures=True)


def _to_device(batch: Batch, device: torch.device, pin: bool) -> Batch:
    def move(value: Any) -> Any:
        if torch.is_tensor(value):
            return (value.pin_memory() if pin else value).to(device, non_blocking=True)
        if isinstance(value, tuple) and value and torch.is_tensor(value[0]):
            return tuple(move(part) for part in value)
        return value

    return {key: move(value) for key, value in batch.items()}
