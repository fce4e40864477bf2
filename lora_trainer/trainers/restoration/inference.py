"""Restoring pictures with a trained LoRA: the networks put together from files, and a picture's way through them.

Letters: b batch, h w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_trainer.data.images import Pixels
from lora_trainer.data.picture_tensors import as_pixels, as_tensor
from lora_trainer.draws import torch_generator
from lora_trainer.engine.precision import Precision
from lora_trainer.errors import Refusal
from lora_trainer.losses.one_step import shares_at
from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.checkpoint import Checkpoint
from lora_trainer.models.restoration.checkpoint import load_restorer, modules_and_rank, read_restorer
from lora_trainer.models.restoration.colour_fix import with_colours_of
from lora_trainer.models.restoration.lora import add_restoration_lora
from lora_trainer.models.restoration.sizes import resized, wanted_size
from lora_trainer.models.restoration.tiles import Tiling
from lora_trainer.trainers.restoration.base import restoration_base
from lora_trainer.trainers.restoration.networks import OneStep
from lora_trainer.trainers.restoration.painter import Painter
from lora_trainer.trainers.restoration.prompts import prepared_prompts

NAMED = 3


class NotFinite(Exception):
    """The networks made NaN or infinity of a picture."""


@dataclass(frozen=True)
class Wishes:
    """How pictures are restored.

    The result is `factor` times as large, or has its longest side at `longest_px` where that is given. `least_px` is
    what the shorter side has at least on the way. With a `seed` the latents are drawn as in training, else they are
    the means. `fixes_colours` puts the picture's own low frequencies under the restored details.
    """

    model_t: int
    coeff_t: int
    tiling: Tiling
    least_px: int
    factor: float = 1.0
    longest_px: int = 0
    fidelity: float = 0.0
    fixes_colours: bool = True
    seed: int | None = None
    at_once: int = 1


@dataclass(frozen=True)
class Restorer:
    """A base model with a LoRA, ready for pictures one after another."""

    painter: Painter
    wishes: Wishes

    @torch.inference_mode()
    def restored(self, pixels: Pixels, prompt: str, name: str) -> Pixels:
        """(h, w, 3) of 0 to 255 of the size that is wished. The name is what latents are drawn by. Raises NotFinite."""
        wishes = self.wishes
        size = wanted_size((pixels.shape[0], pixels.shape[1]), factor=wishes.factor, longest_px=wishes.longest_px)
        image = resized(as_tensor(pixels).to(self.painter.device), size)
        made = self.painter.painted(image, [prompt], self._noise(name))
        if not made.isfinite().all():
            raise NotFinite
        return as_pixels(with_colours_of(made, image) if wishes.fixes_colours else made)

    def _noise(self, name: str) -> Callable[[Sequence[int]], Tensor] | None:
        seed = self.wishes.seed
        if seed is None:
            return None
        generator = torch_generator(seed, "restored latents", name)
        return lambda shape: torch.randn(tuple(shape), generator=generator).to(self.painter.device)


def open_restorer(
    weights: Path,
    checkpoint: Checkpoint | None,
    prompts: Iterable[str],
    wishes: Wishes,
    precision: Precision,
    device: torch.device,
) -> Restorer:
    """The LoRA of a file in the base model, or in the stand-in without one; the prompts are encoded. Raises Refusal."""
    state = read_restorer(weights)
    paths, rank = modules_and_rank(weights, state)
    base = restoration_base(checkpoint, precision, device)
    _refuse_strangers(weights, base, paths)
    add_restoration_lora(base.unet, paths, rank, seed=0)
    load_restorer(base.unet, weights, state)
    base.unet.requires_grad_(False).eval()
    networks = OneStep(base.unet, base.vae, base.prediction, wishes.model_t, shares_at(wishes.coeff_t))
    encoded = prepared_prompts(base, prompts, device)
    painter = Painter(
        networks, encoded, precision, device, wishes.tiling, wishes.least_px, wishes.fidelity, wishes.at_once
    )
    return Restorer(painter, wishes)


def _refuse_strangers(weights: Path, base: BaseModel, paths: Sequence[str]) -> None:
    """Layers that the base model does not have."""
    known = {path for path, layer in base.unet.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}
    if strange := [path for path in paths if path not in known]:
        more = f" and {len(strange) - NAMED} more" if len(strange) > NAMED else ""
        raise Refusal(
            f"{weights}: the LoRA has layers that the base model has not ({', '.join(strange[:NAMED])}{more}); "
            "give the base model that it was trained on"
        )
