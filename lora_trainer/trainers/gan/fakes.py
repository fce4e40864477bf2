"""A GAN's generated images by number, for measuring: the same number is the same latent, label and noise every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_trainer.data.labelled_images import LabelledImages
from lora_trainer.draws import torch_generator, uniform
from lora_trainer.models.gan.generation import as_bytes
from lora_trainer.models.gan.mapping import Generator
from lora_trainer.trainers.gan.painting import normal_rows

STREAM = "metrics"  # keeps these draws apart from those of the training


@dataclass(frozen=True)
class Fakes:
    """What `generator` draws, as it is now; labels are those of random real images."""

    generator: Generator
    reals: LabelledImages
    seed: int
    device: torch.device

    @property
    def resolution(self) -> int:
        return self.reals.resolution

    def latents(self, numbers: Sequence[int], end: str = "") -> Tensor:
        """z (b, z_dim)"""
        rows = [self._normal(self.generator.z_dim, number, f"z{end}") for number in numbers]
        return torch.stack(rows).to(self.device)

    def labels(self, numbers: Sequence[int]) -> Tensor:
        """(b, label_dim)"""
        items = [int(uniform(self.seed, STREAM, number, "label") * len(self.reals)) for number in numbers]
        return torch.from_numpy(self.reals.label(items)).to(self.device)

    def noise(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """What StyleGAN2's layers add, as an option of its synthesis network; nothing for other networks.

        Drawn on the device, as it is millions of numbers for an image of 1024 px.
        """
        size = getattr(self.generator.synthesis, "noise_size", 0)
        if not size:
            return {}
        return {"noise": normal_rows((self.seed, STREAM, "noise"), numbers, (size,), self.device)}

    @torch.no_grad()
    def images(self, numbers: Sequence[int]) -> Tensor:
        """uint8 (b, c, h, w)"""
        made: Tensor = self.generator(self.latents(numbers), self.labels(numbers), **self.noise(numbers))
        return as_bytes(made)

    @torch.no_grad()
    def ws(self, numbers: Sequence[int], end: str = "") -> Tensor:
        """(b, num_ws, w_dim)"""
        found: Tensor = self.generator.mapping(self.latents(numbers, end), self.labels(numbers))
        return found

    def _normal(self, size: int, number: int, what: str) -> Tensor:
        return torch.randn(size, generator=torch_generator(self.seed, STREAM, number, what))
