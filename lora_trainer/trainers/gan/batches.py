"""The batches of a GAN's step: images, labels and latents, as a function of the step and the position in the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_trainer.data.endless_order import drawn_items, items_at
from lora_trainer.data.labelled_images import LabelledImages
from lora_trainer.draws import torch_generator, uniform

PATH_LENGTH = "G_reg"  # the phases, by the names that the logs use
GRADIENT_PENALTY = "D_reg"
GENERATOR, DISCRIMINATOR = "G", "D"


@dataclass(frozen=True)
class Split:
    """How a batch is shared out. Slot s of m takes the positions s, s + m, s + 2 m ...

    Images that a discriminator compares with each other stand at equal distances in its batch, so their groups are the
    same however a batch is split.
    """

    batch: int
    rank: int
    world: int
    per_pass: int

    @property
    def slots(self) -> int:
        return self.batch // self.per_pass

    @property
    def passes(self) -> int:
        return self.slots // self.world

    def positions(self) -> list[tuple[int, ...]]:
        """Those of each pass of this process."""
        first = self.rank * self.passes
        return [tuple(range(slot, self.batch, self.slots)) for slot in range(first, first + self.passes)]


@dataclass(frozen=True)
class GanBatches:
    """`data(step)` is the list of this process's micro-batches.

    Each has uint8 "images" (b, channels, h, w), their "labels" (b, label_dim), "positions" in the whole batch, and for
    every phase that draws images "<phase>/z" (b, z_dim), "<phase>/labels", and with mixed styles "<phase>/z2" and
    "<phase>/cutoff". `draws` has the phases that draw, and every how many steps.
    """

    images: LabelledImages
    seed: int
    split: Split
    z_dim: int
    draws: Mapping[str, int]
    style_mixing: float = 0.0
    num_ws: int = 0

    def __call__(self, step: int) -> list[dict[str, Any]]:
        batch = self.split.batch
        items = items_at(step * batch, batch, len(self.images), self.seed)
        return [self._micro(step, items, positions) for positions in self.split.positions()]

    def _micro(self, step: int, items: Sequence[int], positions: Sequence[int]) -> dict[str, Any]:
        mine = [items[position] for position in positions]
        micro: dict[str, Any] = {
            "images": torch.from_numpy(np.stack([self.images.image(item) for item in mine])),
            "labels": torch.from_numpy(self.images.label(mine)),
            "positions": tuple(positions),
            "step": step,
            "names": [self.images.name(item) for item in mine],
            "weights": torch.ones(len(mine)),
            "total": self.split.batch,
        }
        for phase, every in self.draws.items():
            if step % every == 0:
                micro |= self._drawn(step, phase, positions)
        return micro

    def _drawn(self, step: int, phase: str, positions: Sequence[int]) -> dict[str, Any]:
        lenders = drawn_items(positions, len(self.images), self.seed, step, phase)
        found: dict[str, Any] = {
            f"{phase}/z": latents(self.z_dim, positions, self.seed, step, phase),
            f"{phase}/labels": torch.from_numpy(self.images.label(lenders)),
        }
        if self.style_mixing and uniform(self.seed, step, phase, "mixes") < self.style_mixing:
            found[f"{phase}/z2"] = latents(self.z_dim, positions, self.seed, step, phase, "second")
            found[f"{phase}/cutoff"] = 1 + int(uniform(self.seed, step, phase, "cutoff") * (self.num_ws - 1))
        return found


def latents(z_dim: int, positions: Sequence[int], seed: int, *stream: int | str) -> Tensor:
    """(b, z_dim): for each position numbers of its own."""
    rows = [torch.randn(z_dim, generator=torch_generator(seed, *stream, position, "z")) for position in positions]
    return torch.stack(rows)
