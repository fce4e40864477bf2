"""The sheets of a GAN's run: real images, and always the same latents as the averaged generator draws them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lora_trainer import atomic
from lora_trainer.data.labelled_images import LabelledImages
from lora_trainer.draws import python_random
from lora_trainer.models.gan.mapping import Generator
from lora_trainer.trainers.gan.batches import latents

LARGEST_PX = (7680, 4320)  # width and height
LEAST, MOST = (7, 4), 32  # columns and rows; of either
REALS, FIRST_FAKES = "reals.png", "fakes_init.png"


@dataclass(frozen=True)
class Sheet:
    """Which real images stand where, and the latents and labels of the fakes in their places."""

    columns: int
    rows: int
    items: tuple[int, ...]
    z: Tensor  # (columns * rows, z_dim), on the CPU as the labels
    labels: Tensor

    @classmethod
    def plan(cls, images: LabelledImages, z_dim: int, seed: int) -> Sheet:
        """Without labels any images, with labels a row of each."""
        columns, rows = grid_size(images.resolution)
        items = _items(images, columns, rows, seed)
        z = latents(z_dim, range(columns * rows), seed, "sheet")
        return cls(columns, rows, items, z, torch.from_numpy(images.label(items)))

    def write_reals(self, path: Path, images: LabelledImages) -> None:
        self._write(path, np.stack([images.image(item) for item in self.items]))

    def write_fakes(self, path: Path, generator: Generator, at_a_time: int) -> None:
        """The generator as it is; `at_a_time` images pass it together."""
        self._write(path, self.draw(generator, at_a_time))

    @torch.no_grad()
    def draw(self, generator: Generator, at_a_time: int) -> np.ndarray:
        """uint8 (columns * rows, channels, h, w)."""
        device = next(generator.parameters()).device
        options = {"noise": "const"} if hasattr(generator.synthesis, "noise_size") else {}
        found = []
        for start in range(0, len(self.z), at_a_time):
            part = slice(start, start + at_a_time)
            images = generator(self.z[part].to(device), self.labels[part].to(device), **options)
            found.append((images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy())
        return np.concatenate(found)

    def _write(self, path: Path, images: np.ndarray) -> None:
        """(n, channels, h, w)"""
        _, channels, height, width = images.shape
        grid = images.reshape(self.rows, self.columns, channels, height, width).transpose(0, 3, 1, 4, 2)
        pixels = grid.reshape(self.rows * height, self.columns * width, channels)
        buffer = io.BytesIO()
        Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(buffer, "PNG")
        atomic.write_bytes(path, buffer.getvalue())


def grid_size(resolution: int) -> tuple[int, int]:
    """Columns and rows, for a sheet of about 8K."""
    columns, rows = (min(max(most // resolution, least), MOST) for most, least in zip(LARGEST_PX, LEAST, strict=True))
    return columns, rows


def _items(images: LabelledImages, columns: int, rows: int, seed: int) -> tuple[int, ...]:
    """For each place an image; repeated where there are too few."""
    plain = len(images.names)  # none of the mirrored ones
    groups: Sequence[Sequence[int]] = [range(plain)]
    if images.labels is not None:
        _, which = np.unique(images.labels.values, axis=0, return_inverse=True)
        groups = [np.flatnonzero(which.reshape(-1) == group).tolist() for group in range(which.max() + 1)]
    if len(groups) == 1:
        order = python_random(seed, "sheet").sample(range(plain), plain)
        return tuple(order[place % plain] for place in range(columns * rows))
    found: list[int] = []
    for row in range(rows):
        turn, group = divmod(row, len(groups))
        order = python_random(seed, "sheet", group).sample(groups[group], len(groups[group]))
        found += [order[(turn * columns + column) % len(order)] for column in range(columns)]
    return tuple(found)
