"""How a GAN's networks are called in training: latents become images, and the discriminator looks at them.

b images. Each network is called once a pass with all that it needs, because several processes see only that call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lora_trainer.draws import draw_key
from lora_trainer.engine.phase import Batch
from lora_trainer.models.gan.augmentation import AugmentPipe
from lora_trainer.models.gan.augmentation_strength import FixedStrength
from lora_trainer.models.gan.blur import blur, blur_sigma
from lora_trainer.models.gan.mapping import Generator


class Painter(nn.Module):
    """z (b, z_dim) and labels -> images and their ws (b, layers, w_dim), the later of which may be those of other z."""

    def __init__(self, network: Generator) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, z: Tensor, labels: Tensor, z2: Tensor | None, cutoff: int, noise: Tensor | None, update_emas: bool
    ) -> tuple[Tensor, Tensor]:
        """`z2` takes over at the layer `cutoff`; `noise` is what StyleGAN2's layers add, None for other networks."""
        ws = self.network.mapping(z, labels, update_emas=update_emas)
        if z2 is not None:
            ws = torch.cat([ws[:, :cutoff], self.network.mapping(z2, labels)[:, cutoff:]], 1)
        options = {} if noise is None else {"noise": noise}
        return self.network.synthesis(ws, update_emas=update_emas, **options), ws


@dataclass(frozen=True)
class Brush:
    """Paints what a micro-batch holds for a phase, with noise that follows from each image's position."""

    seed: int
    noise_size: int  # numbers for an image

    def paint(
        self, module: nn.Module, batch: Batch, phase: str, *, update_emas: bool = False, first: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images and ws, of the first few alone where so many are asked for. `module` is a Painter, or DDP's of it."""
        part = slice(first)
        z2 = batch.get(f"{phase}/z2")
        z = batch[f"{phase}/z"][part]
        noise = None
        if self.noise_size:
            stream = (self.seed, batch["step"], phase, "noise")
            noise = normal_rows(stream, batch["positions"][part], (self.noise_size,), z.device)
        images, ws = module(
            z,
            batch[f"{phase}/labels"][part],
            None if z2 is None else z2[part],
            batch.get(f"{phase}/cutoff", 0),
            noise,
            update_emas,
        )
        return images, ws


@dataclass(frozen=True)
class Eye:
    """What the discriminator sees of images: blurred at the start of a training where that is wanted, and augmented."""

    seed: int
    batch: int
    pipe: AugmentPipe | None
    strength: FixedStrength
    blurs: bool

    def look(self, module: nn.Module, images: Tensor, labels: Tensor, batch: Batch, kind: str) -> Tensor:
        """Logits (b, 1). `kind` names the phase and whether the images are real: each has draws of its own."""
        step = batch["step"]
        if self.blurs and (sigma := blur_sigma(step * self.batch, self.batch)) > 0:
            images = blur(images, sigma)
        if self.pipe is not None and self.strength.p > 0:
            keys = [(self.seed, step, kind, position) for position in batch["positions"]]
            images = self.pipe(images, self.strength.p, keys)
        logits: Tensor = module(images, labels)
        return logits


def normal_rows(
    stream: Sequence[int | str], positions: Sequence[int], shape: Sequence[int], device: torch.device
) -> Tensor:
    """(b, *shape): for each position numbers of its own, drawn on the device, as there are too many to be moved."""
    rows = torch.empty(len(positions), *shape, device=device)
    generator = torch.Generator(device)
    for row, position in zip(rows, positions, strict=True):
        generator.manual_seed(draw_key(*stream, position) & 0x7FFF_FFFF_FFFF_FFFF)
        row.normal_(generator=generator)
    return rows
