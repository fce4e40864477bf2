"""What the micro-batches of pairs have in common, whatever their crops are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from lora_trainer.data.batches import Share, micro_positions
from lora_trainer.data.images import Pixels
from lora_trainer.data.pair_store import PairStore
from lora_trainer.draws import draw_key


class PairOrder(Protocol):
    """Which pictures a step sees."""

    @property
    def seed(self) -> int: ...

    @property
    def steps_per_epoch(self) -> int: ...

    def batch_of(self, step: int) -> Sequence[int]: ...


@dataclass
class PairBatches(ABC):
    """`data(step)` is the list of this process's micro-batches. Pickled into loader processes.

    A micro-batch has uint8 "gt" (b, 3, h, w), for pairs "lq", and for each sample a key from which everything random
    about it follows on the device.
    """

    plan: PairOrder
    store: PairStore
    share: Share

    def __call__(self, step: int) -> list[dict[str, Any]]:
        batch = self.plan.batch_of(step)
        return [self.micro(step, batch, positions) for positions in micro_positions(batch, self.share)]

    @abstractmethod
    def sample(self, step: int, position: int, item: int) -> tuple[Pixels, Pixels | None]:
        """What this place of the step's batch shows of the pair: gt and lq, (h, w, 3) each."""

    def micro(self, step: int, batch: Sequence[int], positions: Sequence[int]) -> dict[str, Any]:
        """A process without a picture of its own gets one that counts nothing: the others wait for its gradients."""
        weights = torch.ones(len(positions)) if positions else torch.zeros(1)
        chosen = positions or (0,)
        rows = [self.sample(step, position, batch[position]) for position in chosen]
        micro: dict[str, Any] = {"gt": stacked([gt for gt, _ in rows])}
        if rows[0][1] is not None:
            micro["lq"] = stacked([lq for _, lq in rows if lq is not None])
        return {
            **micro,
            "keys": [draw_key(self.plan.seed, step, position, "degradation") for position in chosen],
            "names": [self.store.pairs[batch[position]].name for position in chosen],
            "weights": weights,
            "total": len(batch),
        }


def oriented(pixels: Pixels, mirrored: bool, flipped: bool, turned: bool) -> Pixels:
    """Mirrored left to right, flipped upside down, and with rows and columns exchanged."""
    pixels = pixels[:, ::-1] if mirrored else pixels
    pixels = pixels[::-1] if flipped else pixels
    return pixels.transpose(1, 0, 2) if turned else pixels


def stacked(crops: Sequence[Pixels]) -> torch.Tensor:
    """(h, w, 3) each -> (b, 3, h, w)."""
    return torch.from_numpy(np.stack([np.ascontiguousarray(crop.transpose(2, 0, 1)) for crop in crops]))
