"""Clean pictures as a moved, unfocused or starved camera would have taken them.

Pictures are (1, 3, h, w) from 0 to 1; strengths go from 0, nothing, to 1; what is random comes from the CPU generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lora_trainer.data.strokes import smeared, stroke

GAMMA = 2.2  # from a picture's values to light, near enough to sRGB
WAY_SHARE = 0.06  # of the short side, that the camera moves at most while the shutter is open
DISC_SHARE = 0.012  # of the short side, the radius of a point out of focus
BEND = 0.3
STOPS = (2.5, 4.5)  # less light, at full strength
CAST = 0.25  # stops of one colour against another
SHOT_NOISE, READ_NOISE = 4e-4, 1.2e-3  # of the brightest light: variance for each unit of light, and deviation


def between(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def blurred(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Moved along a bent line, or out of focus, as light adds up."""
    short = min(image.shape[-2:])
    moved = between(generator, 0, 1) < 0.5
    amount = strength * between(generator, 0.6, 1)
    angle, bend = between(generator, 0, math.pi), between(generator, -BEND, BEND)
    kernel = (
        stroke(amount * WAY_SHARE * short, angle, bend=bend)
        if moved
        else stroke(0, 0, radius_px=0.5 + amount * DISC_SHARE * short)
    )
    return smeared(image**GAMMA, kernel / kernel.sum()).clamp(0, 1) ** (1 / GAMMA)


def underexposed(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Too little light of the wrong colour, and the noise of counting what there was of it."""
    stops = strength * between(generator, *STOPS)
    cast = strength * CAST * (2 * torch.rand(1, 3, 1, 1, generator=generator) - 1)
    light = image**GAMMA * 2 ** (cast - stops)
    deviation = strength * (SHOT_NOISE * light + READ_NOISE**2).sqrt()
    noise = torch.randn(image.shape, generator=generator)
    return (light + deviation * noise).clamp(0, 1) ** (1 / GAMMA)
