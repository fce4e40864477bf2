"""Moving averages that a generator keeps of its own activations, updated at once or once for a whole split batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Averaging(nn.Module):
    """A module with one buffer that follows the mean over the batch of what it sees."""

    statistic: str  # the buffer's name
    decay: float  # what remains of the old value after a batch
    _seen: list[tuple[Tensor, int]] | None = None  # (sum, samples) of each pass, while collecting

    @torch.no_grad()
    def observe(self, mean: Tensor, samples: int) -> None:
        if self._seen is None:
            self.follow(mean.detach())
        else:
            self._seen.append((mean.detach().float() * samples, samples))

    @torch.no_grad()
    def follow(self, mean: Tensor) -> None:
        buffer: Tensor = getattr(self, self.statistic)
        buffer.lerp_(mean.to(buffer.dtype), 1 - self.decay)


@contextmanager
def collected_statistics(
    network: nn.Module, sum_over_processes: Callable[[Tensor], Tensor] = lambda sums: sums
) -> Iterator[None]:
    """Within, `update_emas=True` only collects; at the end each average moves once, by the mean of all passes.

    So a batch moves the averages alike, in however many passes and processes it is computed. The price: within the
    batch the averages are those from before it. `sum_over_processes` gets one flat tensor of sums and counts.
    """
    modules = [module for module in network.modules() if isinstance(module, Averaging)]
    for module in modules:
        module._seen = []
    try:
        yield
        _move(modules, sum_over_processes)
    finally:
        for module in modules:
            module._seen = None


def _move(modules: list[Averaging], sum_over_processes: Callable[[Tensor], Tensor]) -> None:
    if not modules:  # r3gan keeps none
        return
    sums = []
    for module in modules:
        if not module._seen:
            raise RuntimeError(f"{type(module).__name__} has seen no batch with update_emas")
        total = torch.stack([each.flatten() for each, _ in module._seen]).sum(0)
        sums.append(torch.cat([total, total.new_tensor([sum(samples for _, samples in module._seen)])]))
    parts = sum_over_processes(torch.cat(sums)).split_with_sizes([len(each) for each in sums])
    for module, part in zip(modules, parts, strict=True):
        module.follow((part[:-1] / part[-1]).view_as(getattr(module, module.statistic)))
