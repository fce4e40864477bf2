"""Structural similarity, at one scale and at five (Wang et al. 2003 and 2004).

Letters: b batch, c channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.losses.colour_spaces import luma_lhm, luma_yiq, y_bt601
from lora_trainer.losses.full_precision import full_precision
from lora_trainer.losses.gaussian import filtered, gaussian_window
from lora_trainer.losses.pixel import per_sample

WINDOW_PX, SIGMA_PX = 11, 1.5
K1, K2 = 0.01, 0.03
LEVEL_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SHORT_SIDE_PX = 256  # to which `downsample` brings a picture, as the paper's program does
LEAST_MEAN = 1e-8  # below this a level's mean is 0, and its power has no gradient
LUMAS: Mapping[str, Callable[[Tensor], Tensor]] = {"yiq": luma_yiq, "ycbcr": y_bt601, "lhm": luma_lhm}


def ssim_maps(x: Tensor, y: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast with structure, (b, c, h - 10, w - 10) each.

    A picture smaller than the window keeps its size and is surrounded by zeros.
    """
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    products = torch.cat([x, y, x.square(), y.square(), x * y], dim=1)
    window = gaussian_window(WINDOW_PX, SIGMA_PX)
    blurred = filtered(products, window, padded=min(x.shape[-2:]) < WINDOW_PX)
    mean_x, mean_y, xx, yy, xy = torch.split(blurred, x.shape[1], dim=1)
    squares, both = mean_x.square() + mean_y.square(), mean_x * mean_y
    return (2 * both + c1) / (squares + c1), (2 * (xy - both) + c2) / (xx + yy - squares + c2)


def ssim(x: Tensor, y: Tensor, data_range: float = 1.0, *, clamped: bool = False) -> Tensor:
    """(b,) the mean over pixels and channels; ``clamped`` takes negative structure as 0."""
    luminance, structure = ssim_maps(x, y, data_range)
    return per_sample(luminance * (structure.clamp(min=0) if clamped else structure))


def ms_ssim(
    x: Tensor, y: Tensor, data_range: float = 1.0, *, include_luminance: bool = True, is_prod: bool = True
) -> Tensor:
    """(b,) over five levels, each half of the one before; negative structure counts as 0.

    Luminance counts at the last level. Without ``is_prod`` the levels are averaged with the weights, else they are the
    exponents of a product.
    """
    means = []
    for level in range(len(LEVEL_WEIGHTS)):
        if level:
            x, y = _halved(x), _halved(y)
        luminance, structure = ssim_maps(x, y, data_range)
        structure = structure.clamp(min=0)
        last = level == len(LEVEL_WEIGHTS) - 1
        means.append(per_sample(luminance * structure if last and include_luminance else structure))
    levels = torch.stack(means)  # (5, b)
    weights = levels.new_tensor(LEVEL_WEIGHTS)[:, None]
    if not is_prod:
        return (levels * weights / weights.sum()).sum(0)
    alive = levels > LEAST_MEAN
    return torch.where(alive.all(0), (levels.clamp(min=LEAST_MEAN).log() * weights).sum(0).exp(), 0.0)


@full_precision
def ssim_loss(
    output: Tensor,
    target: Tensor,
    downsample: bool = False,
    test_y_channel: bool = True,
    color_space: str = "yiq",
    crop_border: int = 0,
) -> Tensor:
    """(b,) 1 - SSIM of the luma, or of the colours without ``test_y_channel``. Raises Refusal."""
    if crop_border:
        inner = slice(crop_border, -crop_border)
        output, target = output[..., inner, inner], target[..., inner, inner]
    x, y = (_prepared(image, downsample, test_y_channel, color_space) for image in (output, target))
    return 1 - ssim(x, y, clamped=True)


@full_precision
def mssim_loss(
    output: Tensor,
    target: Tensor,
    downsample: bool = False,
    test_y_channel: bool = True,
    is_prod: bool = True,
    color_space: str = "yiq",
    include_luminance: bool = False,
) -> Tensor:
    """(b,) 1 - MS-SSIM of the luma, or of the colours without ``test_y_channel``. Raises Refusal."""
    x, y = (_prepared(image, downsample, test_y_channel, color_space) for image in (output, target))
    return 1 - ms_ssim(x, y, include_luminance=include_luminance, is_prod=is_prod).clamp(0, 1)


def luma_named(color_space: str) -> Callable[[Tensor], Tensor]:
    """What makes (b, 1, h, w) of RGB. Raises Refusal."""
    if color_space not in LUMAS:
        raise Refusal(f"there is no color_space {color_space!r}; write one of {', '.join(LUMAS)}")
    return LUMAS[color_space]


def _halved(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    return F.avg_pool2d(image, 2, padding=(height % 2, width % 2))


def _prepared(image: Tensor, downsample: bool, test_y_channel: bool, color_space: str) -> Tensor:
    image = luma_named(color_space)(image) if test_y_channel else image
    factor = round(min(image.shape[-2:]) / SHORT_SIDE_PX)
    return F.avg_pool2d(image, factor) if downsample and factor > 1 else image
