"""Haze, rain and snow in front of clean pictures.

Pictures are (1, 3, h, w) from 0 to 1; strengths go from 0, nothing, to 1; what is random comes from the CPU generator.
Haze is Koschmieder's law: with the transmission t = exp(-beta depth), what arrives is J t + A (1 - t).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_trainer.data.camera_faults import between
from lora_trainer.data.strokes import smeared, stroke

BETA = (1.2, 2.2)  # at full strength
AIRLIGHT = (0.75, 0.95)
NEAREST, WAVES = 0.25, 0.35  # the depth at the bottom, of 1 at the top, and how far clouds change it
CLOUD_CELLS = 4
RAIN_VEIL, SNOW_VEIL = 0.35, 0.3  # the haze that comes with them, against that of haze alone
SLANT = math.radians(20)  # off the vertical


@dataclass(frozen=True)
class Layer:
    """Drops or flakes at one distance; lengths and radii are shares of the picture's short side."""

    count: float  # in a square of the short side
    length: float
    radius: float
    softness: float
    opacity: float


RAIN = (
    Layer(count=900, length=0.045, radius=0.0009, softness=0.002, opacity=0.30),
    Layer(count=260, length=0.10, radius=0.0014, softness=0.003, opacity=0.42),
    Layer(count=50, length=0.20, radius=0.002, softness=0.005, opacity=0.5),
)
SNOW = (
    Layer(count=900, length=0.003, radius=0.0018, softness=0.002, opacity=0.75),
    Layer(count=300, length=0.006, radius=0.0040, softness=0.005, opacity=0.9),
    Layer(count=60, length=0.012, radius=0.0085, softness=0.010, opacity=0.9),
    Layer(count=10, length=0.022, radius=0.0180, softness=0.030, opacity=0.7),
)


def hazy(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Air between the camera and what it sees, more of it towards the top of the picture."""
    depth = depth_proxy(image.shape[-2], image.shape[-1], generator)
    airlight = between(generator, *AIRLIGHT) + 0.04 * (torch.rand(1, 3, 1, 1, generator=generator) - 0.5)
    transmission = torch.exp(-strength * between(generator, *BETA) * depth)
    return (image * transmission + airlight * (1 - transmission)).clamp(0, 1)


def rainy(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Streaks of drops at three distances, all falling one way, and a veil of those that are too far to be seen."""
    angle = math.pi / 2 + between(generator, -SLANT, SLANT)
    veiled = hazy(image, RAIN_VEIL * strength, generator)
    return _in_front(veiled, RAIN, strength, angle, between(generator, 0.8, 0.95), generator)


def snowy(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Flakes at four distances, the nearest ones large and out of focus, and a veil."""
    angle = math.pi / 2 + between(generator, -2 * SLANT, 2 * SLANT)
    veiled = hazy(image, SNOW_VEIL * strength, generator)
    return _in_front(veiled, SNOW, strength, angle, between(generator, 0.92, 1), generator)


def depth_proxy(height: int, width: int, generator: torch.Generator) -> Tensor:
    """(1, 1, h, w) about 0.25 at the bottom and 1 at the top, with clouds in it: most pictures are far away above."""
    ramp = torch.linspace(1, NEAREST, height).view(1, 1, height, 1)
    cells = torch.rand(1, 1, CLOUD_CELLS, CLOUD_CELLS, generator=generator)
    clouds = F.interpolate(cells, (height, width), mode="bicubic", align_corners=True)
    return (ramp + WAVES * (clouds - 0.5)).clamp(min=0.05)


def _in_front(
    image: Tensor, layers: Sequence[Layer], strength: float, angle: float, brightness: float, generator: torch.Generator
) -> Tensor:
    """Each layer's marks laid over the picture, the farthest first; with more strength there are more of them."""
    short = min(image.shape[-2:])
    for layer in layers:
        tilt = angle + between(generator, -0.05, 0.05)
        mark = stroke(layer.length * short, tilt, layer.radius * short, max(1.0, layer.softness * short))
        seeds = _seeds(image.shape[-2], image.shape[-1], strength * layer.count / short**2, generator)
        opacity = (layer.opacity * smeared(seeds, mark)).clamp(0, layer.opacity)
        image = image + opacity * (brightness - image)
    return image.clamp(0, 1)


def _seeds(height: int, width: int, density: float, generator: torch.Generator) -> Tensor:
    """(1, 1, h, w) 0, and where a mark has its middle, how much of it there is, from 0.3 to 1."""
    places = torch.rand(1, 1, height, width, generator=generator) < density
    return places * (0.3 + 0.7 * torch.rand(1, 1, height, width, generator=generator))
