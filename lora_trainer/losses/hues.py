"""How much of a picture has a colour: green, purple.

Letters: b batch, h w pixels. Pictures are (b, 3, h, w) from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lora_trainer.losses.full_precision import full_precision

HUES: Mapping[str, tuple[float, float]] = {"green": (75.0, 165.0), "purple": (255.0, 325.0)}  # degrees of HSV
LEAST_SATURATION, LEAST_VALUE = 0.25, 0.15  # below them a hue is hardly seen


@full_precision
def share_of(image: Tensor, hue: str) -> Tensor:
    """(b,) from 0 to 1: of the pixels, those of this colour. ``hue`` is a name in `HUES`."""
    low, high = HUES[hue]
    value, largest = image.max(1)  # (b, h, w) each
    spread = value - image.min(1).values
    degrees = _degrees(image, spread, largest)
    seen = (value >= LEAST_VALUE) & (spread >= LEAST_SATURATION * value)
    return ((degrees >= low) & (degrees < high) & seen).float().flatten(1).mean(1)


def _degrees(image: Tensor, spread: Tensor, largest: Tensor) -> Tensor:
    """(b, h, w) the hue of HSV from 0 to 360; anything for a grey."""
    red, green, blue = image.unbind(1)
    safe = spread.clamp(min=1e-6)
    sectors = torch.stack([(green - blue) / safe % 6, (blue - red) / safe + 2, (red - green) / safe + 4])
    return 60 * sectors.gather(0, largest[None])[0]
