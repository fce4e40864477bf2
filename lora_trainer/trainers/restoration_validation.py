"""Measuring a restorer on held-out pairs without chance, and showing what it makes of the same pictures over time.

Pictures of the data go from 0 to 1, those of the networks from -1 to 1.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_trainer.data.picture_tensors import as_pixels, as_tensor
from lora_trainer.data.restoration_pairs import RestorationSet
from lora_trainer.engine.phase import Batch
from lora_trainer.losses.final_score import PictureQuality, validation_metrics
from lora_trainer.losses.restoration_quality import psnr_y, ssim_y
from lora_trainer.trainers.preview_sheet import write_table
from lora_trainer.trainers.restoration_objective import as_shares
from lora_trainer.trainers.restoration_painter import Painter

log = logging.getLogger(__name__)

SHOWN = 4  # pictures of a sheet


@dataclass(frozen=True)
class Validator:
    """`items` are the pairs that are measured; `lpips` takes pictures from 0 to 1."""

    painter: Painter
    pairs: RestorationSet
    items: Sequence[int]
    batch_size: int
    lpips: nn.Module

    def measure(self) -> dict[str, float]:
        """`val/PSNR`, `val/Blur/PSNR` ... of the networks as they are."""
        found: list[PictureQuality] = []
        for items in self._batches():
            degraded, originals = self._pictures(items, "lq"), self._pictures(items, "gt")
            restored = self.painter.restored(degraded, [self.pairs.prompts[item] for item in items])
            found += self._qualities(items, restored, originals)
        return validation_metrics(found)

    def measure_input(self) -> dict[str, float]:
        """The same of the degraded pictures as they are, which a restorer is to surpass."""
        found: list[PictureQuality] = []
        for items in self._batches():
            found += self._qualities(items, self._pictures(items, "lq"), self._pictures(items, "gt"))
        return validation_metrics(found)

    def _batches(self) -> Iterator[list[int]]:
        """Pairs of one size that stand beside each other, so many at a time."""
        for _, group in groupby(self.items, key=lambda item: self.pairs.pairs[item].gt_px):
            alike = list(group)
            yield from (alike[first : first + self.batch_size] for first in range(0, len(alike), self.batch_size))

    def _pictures(self, items: Sequence[int], which: str) -> Tensor:
        return torch.cat([as_tensor(self.pairs.pairs[item].read(which)) for item in items])

    @torch.inference_mode()
    def _qualities(self, items: Sequence[int], images: Tensor, originals: Tensor) -> list[PictureQuality]:
        device = self.painter.device
        lpips = self.lpips(images.to(device), originals.to(device)).cpu()
        values = zip(items, psnr_y(images, originals), ssim_y(images, originals), lpips, strict=True)
        return [PictureQuality(self.pairs.kinds[item], *map(float, found)) for item, *found in values]


def draw_pictures(
    path: Path, painter: Painter, micro: Batch, versions: dict[str, contextlib.AbstractContextManager[object]]
) -> None:
    """A sheet with a row for each of the first pictures of a batch with "lq", "gt" and "prompts": degraded, each
    version of the restorer, original."""
    lq, gt = micro["lq"][:SHOWN], micro["gt"][:SHOWN]
    prompts = micro["prompts"][:SHOWN]
    columns = {"degraded": as_shares(lq)}
    for name, version in versions.items():
        with version:
            columns[name] = painter.restored(as_shares(lq), prompts)
    columns["original"] = as_shares(gt)
    rows = [[as_pixels(images[row : row + 1]) for images in columns.values()] for row in range(len(lq))]
    write_table(path, list(columns), rows)
