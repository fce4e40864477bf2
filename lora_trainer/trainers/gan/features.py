"""What a network sees in many images: batch by batch, shared out among the processes, and kept on disk if wanted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from lora_trainer.data.tensor_file import read_tensors, write_tensors
from lora_trainer.losses.frechet_distance import Moments

log = logging.getLogger(__name__)

Images = Callable[[Sequence[int]], Tensor]  # numbers of images -> uint8 (b, c, h, w) on the device
See = Callable[[Tensor], Tensor]  # uint8 (b, c, h, w) -> (b, d)
FORMAT = 1  # of what is kept


class Team(Protocol):
    """This process among those that measure together (engine.processes.Processes)."""

    @property
    def rank(self) -> int: ...
    @property
    def world(self) -> int: ...
    def sum_(self, tensor: Tensor) -> Tensor: ...
    def any(self, flag: bool) -> bool: ...


@dataclass(frozen=True)
class Alone:
    """A single process."""

    rank: int = 0
    world: int = 1

    def sum_(self, tensor: Tensor) -> Tensor:
        return tensor

    def any(self, flag: bool) -> bool:
        return flag


class Interrupted(Exception):
    """A measurement that was given up because the run is to stop."""


@dataclass(frozen=True)
class Watch:
    """Hears how far a measurement is, and says whether it is to be given up."""

    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    stopped: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Gallery:
    """So many images, looked at a few at a time; each process looks at its share of every round.

    `what` they are is told with the progress.
    """

    what: str
    images: Images
    count: int
    at_a_time: int
    team: Team
    device: torch.device

    def moments(self, see: See, watch: Watch) -> Moments:
        """Of all that is seen, in every process."""
        found: Moments | None = None
        for numbers in self._rounds(watch):
            if numbers:
                seen = see(self.images(numbers))
                found = found or Moments(seen.shape[1], self.device)
                found.add(seen)
        if found is None:  # fewer images than processes
            found = Moments(see(self.images([0])).shape[1], self.device)
        if self.team.world > 1:
            self.team.sum_(found.sums)
            self.team.sum_(found.products)
            found.count = self.count
        return found

    def features(self, see: See, watch: Watch) -> Tensor:
        """(count, d) of all images in their order, in every process."""
        found: Tensor | None = None
        for numbers in self._rounds(watch):
            if numbers:
                seen = see(self.images(numbers)).float()
                found = seen.new_zeros(self.count, seen.shape[1]) if found is None else found
                found[torch.tensor(numbers, device=found.device)] = seen
        if found is None:
            width = see(self.images([0])).shape[1]
            found = torch.zeros(self.count, width, device=self.device)
        return self.team.sum_(found) if self.team.world > 1 else found

    def _rounds(self, watch: Watch) -> Iterator[Sequence[int]]:
        """The numbers of this process's images, in as many rounds as every other process has; the last may be empty."""
        step = self.at_a_time * self.team.world
        for start in range(0, self.count, step):
            if self.team.any(watch.stopped()):
                raise Interrupted
            first = start + self.team.rank * self.at_a_time
            yield range(first, min(first + self.at_a_time, self.count))
            watch.progress(self.what, min(start + step, self.count), self.count)


def kept(
    folder: Path, facts: Sequence[str | int], team: Team, make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """What was made earlier from the same facts, or what is made now; on the CPU. A damaged file is made again."""
    text = "\x1f".join(str(fact) for fact in (FORMAT, *facts))
    path = folder / f"{blake2b(text.encode(), digest_size=16).hexdigest()}.safetensors"
    found = read_tensors(path)
    if not team.any(found is None) and found is not None:
        return found
    made = {name: tensor.cpu() for name, tensor in make().items()}
    if team.rank == 0:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_tensors(path, made)
        except OSError as error:
            log.warning("%s: what was seen in the real images cannot be kept there (%s)", folder, error.strerror)
    return made
