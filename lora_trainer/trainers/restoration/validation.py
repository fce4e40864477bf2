"""Measuring a restorer on held-out pairs without chance, and showing what it makes of the same pictures over time.

Pictures of the data go from 0 to 1, those of the networks from -1 to 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_trainer.data.picture_tensors import as_pixels, as_tensor
from lora_trainer.data.restoration_pairs import RestorationSet
from lora_trainer.losses.final_score import PictureQuality, validation_metrics
from lora_trainer.losses.restoration_quality import psnr_y, ssim_y
from lora_trainer.trainers.preview_sheet import write_table
from lora_trainer.trainers.restoration.painter import Painter

SHOWN, SHOWN_TYPES = 4, 8  # trained pictures of a sheet, and held-out ones

Swap = contextlib.AbstractContextManager[object]


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


@dataclass(frozen=True)
class Shown:
    """A picture of a sheet: degraded and original, (1, 3, h, w) from 0 to 1."""

    degraded: Tensor
    original: Tensor
    prompt: str


def held_out_examples(pairs: RestorationSet, side_px: int) -> list[Shown]:
    """The middle of the first picture of each type; of at most so many pixels a side."""
    found = []
    for item in pairs.first_of_each_kind(1)[:SHOWN_TYPES]:
        degraded, original = (_middle(as_tensor(pairs.pairs[item].read(which)), side_px) for which in ("lq", "gt"))
        found.append(Shown(degraded, original, pairs.prompts[item]))
    return found


def draw_pictures(
    path: Path, painter: Painter, shown: Sequence[Shown], versions: Mapping[str, Callable[[], Swap]]
) -> None:
    """A sheet with a row for each picture: degraded, by each version of the restorer, original."""
    columns = [[each.degraded for each in shown]]
    for version in versions.values():
        with version():
            columns.append([painter.restored(each.degraded, [each.prompt]) for each in shown])
    columns.append([each.original for each in shown])
    rows = [[as_pixels(image) for image in row] for row in zip(*columns, strict=True)]
    write_table(path, ["degraded", *versions, "original"], rows)


def _middle(image: Tensor, side_px: int) -> Tensor:
    height, width = (int(side) for side in image.shape[-2:])
    rows, columns = min(side_px, height), min(side_px, width)
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[..., top : top + rows, left : left + columns]
