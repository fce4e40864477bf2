"""The difference of hue, saturation and lightness, each by itself, in the HSLuv space.

Letters: b batch, h w pixels. Pictures are (b, 3, h, w) from 0 to 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.losses.colour_spaces import hsluv
from lora_trainer.losses.full_precision import full_precision
from lora_trainer.losses.pixel import difference_named, per_sample

COLOURLESS = 0.1  # below this saturation, or within this of black or white, a hue says nothing
THIRD = 1 / 3


@full_precision
def hsluv_loss(
    output: Tensor,
    target: Tensor,
    criterion: str = "l1",
    downscale_factor: int = 1,
) -> dict[str, Tensor]:
    """(b,) each of "hue", "saturation" and "lightness", of the pictures made smaller by ``downscale_factor``.

    The hue's difference is an angle, from 0 to 1 for opposite hues, whatever the criterion is. The saturation's counts
    by how far both colours are from black and white. Raises Refusal for an unknown criterion.
    """
    differ = difference_named(criterion)
    hue_x, saturation_x, lightness_x = _parts(output, downscale_factor)
    hue_y, saturation_y, lightness_y = _parts(target, downscale_factor)
    colourful = _from_extremes(lightness_x) + _from_extremes(lightness_y)
    hue = _hue_difference(hue_x, hue_y, saturation_x, saturation_y)
    both_dark = (lightness_x < COLOURLESS) & (lightness_y < COLOURLESS)
    both_bright = (lightness_x > 1 - COLOURLESS) & (lightness_y > 1 - COLOURLESS)
    return {
        "hue": per_sample(torch.where(both_dark | both_bright, 0.0, hue)),
        "saturation": per_sample(differ(saturation_x, saturation_y) * colourful),
        "lightness": per_sample(differ(lightness_x, lightness_y)),
    }


def _parts(image: Tensor, downscale_factor: int) -> tuple[Tensor, ...]:
    """Hue, saturation, lightness from 0 to 1, (b, h, w) each."""
    if downscale_factor > 1:
        image = F.interpolate(image, scale_factor=1 / downscale_factor, mode="bicubic", antialias=True).clamp(0, 1)
    degrees, saturation, lightness = hsluv(image).unbind(1)
    return degrees / 360, saturation / 100, lightness / 100


def _hue_difference(hue_x: Tensor, hue_y: Tensor, saturation_x: Tensor, saturation_y: Tensor) -> Tensor:
    """0 between greys; between a grey and a colour as large as the colour is strong."""
    apart = (hue_x - hue_y).abs()
    apart = 2 * torch.minimum(apart, 1 - apart)
    grey_x, grey_y = saturation_x < COLOURLESS, saturation_y < COLOURLESS
    apart = torch.where(grey_x ^ grey_y, torch.maximum(saturation_x, saturation_y), apart)
    return torch.where(grey_x & grey_y, 0.0, apart)


def _from_extremes(lightness: Tensor) -> Tensor:
    return torch.minimum(lightness, 1 - lightness).clamp(0, 0.5)
