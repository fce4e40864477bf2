"""The five degradations that restorers are trained and judged on, made from clean pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lora_trainer.data.camera_faults import blurred, underexposed
from lora_trainer.data.images import Pixels
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
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    made = DEGRADATIONS[kind](image, strength, torch_generator(*key, kind))
    degraded: Pixels = (made[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return degraded
