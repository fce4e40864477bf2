"""The five degradations that restorers are trained and judged on, made from clean pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lora_trainer.data.camera_faults import blurred, underexposed
from lora_trainer.data.images import Pixels
from lora_trainer.data.picture_tensors import as_pixels, as_tensor
from lora_trainer.data.weather import hazy, rainy, snowy
from lora_trainer.draws import torch_generator

DEGRADATIONS: Mapping[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "Blur": blurred,
    "Haze": hazy,
    "Lowlight": underexposed,
    "Rain": rainy,
    "Snow": snowy,
}


@torch.no_grad()
def degraded_picture(pixels: Pixels, kind: str, strength: float, *key: int | str) -> Pixels:
    """(h, w, 3) uint8 of the same size, as a function of the key. KeyError for a kind that is none of the five."""
    return as_pixels(DEGRADATIONS[kind](as_tensor(pixels), strength, torch_generator(*key, kind)))
