"""MS-SSIM-L1: structure at five scales, mixed with an absolute difference (Zhao et al. 2016).

Letters: b batch, h w pixels. Pictures are (b, 3, h, w) from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from lora_trainer.losses.full_precision import full_precision
from lora_trainer.losses.gaussian import filtered, gaussian_window, trimmed
from lora_trainer.losses.pixel import absolute, per_sample

SIGMAS_PX = (0.5, 1.0, 2.0, 4.0, 8.0)
K = (0.01, 0.03)
COLOURS = 3


@full_precision
def ms_ssim_l1_loss(
    output: Tensor,
    target: Tensor,
    alpha: float = 0.1,
    sigmas_px: Sequence[float] = SIGMAS_PX,
    k: tuple[float, float] = K,
    interleaved_scales: bool = False,
) -> Tensor:
    """(b,) ``alpha`` of 1 - MS-SSIM, and the rest of the absolute difference under the widest window.

    The scales are windows of one size, 4 * the last sigma + 1, on the picture as it is; outside of it there are zeros.
    Contrast and structure count at every scale in every colour, luminance at the last scale. There are no exponents.

    With ``interleaved_scales`` red has sigmas .5 .5 .5 1 1, green 1 2 2 2 4, blue 4 4 8 8 8, and blue's luminance
    counts three times: so traiNNer-redux's grouped convolution deals its 15 windows out to the colours.
    """
    windows = [trimmed(gaussian_window(int(4 * sigmas_px[-1] + 1), sigma)) for sigma in sigmas_px]
    similarity = _similarity(output, target, windows, k, interleaved_scales)
    blurred = filtered(absolute(output, target), windows[-1], padded=True).mean(1)
    return per_sample(alpha * (1 - similarity) + (1 - alpha) * blurred)


def _similarity(
    output: Tensor, target: Tensor, windows: Sequence[tuple[float, ...]], k: tuple[float, float], interleaved: bool
) -> Tensor:
    """(b, h, w) the product over scales and colours."""
    c1, c2 = k[0] ** 2, k[1] ** 2
    products = torch.cat([output, target, output.square(), target.square(), output * target], dim=1)
    structure: list[Tensor] = []
    luminance = products.new_ones(())
    for window in windows:
        mean_x, mean_y, xx, yy, xy = torch.split(filtered(products, window, padded=True), COLOURS, dim=1)
        squares, both = mean_x.square() + mean_y.square(), mean_x * mean_y
        structure.append((2 * (xy - both) + c2) / (xx + yy - squares + c2))
        luminance = (2 * both + c1) / (squares + c1)
    factors = [structure[scale][:, colour] for scale, colour in _maps(len(windows), interleaved)]
    factors += [luminance[:, COLOURS - 1 if interleaved else colour] for colour in range(COLOURS)]
    return reduce(torch.mul, factors)  # not prod(), whose gradient waits for the device to look for zeros


def _maps(scales: int, interleaved: bool) -> list[tuple[int, int]]:
    """(scale, colour) of every map of the product."""
    if interleaved:
        return [(number // COLOURS, number // scales) for number in range(COLOURS * scales)]
    return [(scale, colour) for scale in range(scales) for colour in range(COLOURS)]
