"""Colour spaces of losses and measures: luma, Y'CbCr, lightness, HSLuv. All are differentiable.

Letters: b batch, h w pixels. RGB is (b, 3, h, w), gamma-coded sRGB from 0 to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

YIQ_LUMA = (0.299, 0.587, 0.114)
LHM_LUMA = (0.2989, 0.587, 0.114)
BT601 = (  # rows Y, Cb, Cr; of 255, as MATLAB's rgb2ycbcr
    (65.481, 128.553, 24.966),
    (-37.797, -74.203, 112.0),
    (112.0, -93.786, -18.214),
)
BT601_OFFSETS = (16.0, 128.0, 128.0)
XYZ_OF_RGB = (
    (0.41239079926595, 0.35758433938387, 0.18048078840183),
    (0.21263900587151, 0.71516867876775, 0.072192315360733),
    (0.019330818715591, 0.11919477979462, 0.95053215224966),
)
RGB_OF_XYZ = (
    (3.240969941904521, -1.537383177570093, -0.498610760293),
    (-0.96924363628087, 1.87596750150772, 0.041555057407175),
    (0.055630079696993, -0.20397695888897, 1.056971514242878),
)
WHITE_U, WHITE_V = 0.19783000664283, 0.46831999493879
KAPPA, EPSILON = 903.2962962, 0.0088564516  # of CIE lightness: slope near black, and where the cube root takes over
LEAST_L, MOST_L = 1e-4, 99.999  # beyond these a colour has no saturation
LEAST_CHROMA = 1e-5  # times the lightness; float32 leaves a grey up to a tenth of it


def weighted_sum(image: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """(b, 1, h, w) of the three channels."""
    red, green, blue = image.unbind(1)
    return (weights[0] * red + weights[1] * green + weights[2] * blue).unsqueeze(1)


def luma_yiq(image: Tensor) -> Tensor:
    """(b, 1, h, w) from 0 to 1."""
    return weighted_sum(image, YIQ_LUMA)


def luma_lhm(image: Tensor) -> Tensor:
    """(b, 1, h, w) from 0 to 1, with MATLAB's rgb2gray weights."""
    return weighted_sum(image, LHM_LUMA)


def y_bt601(image: Tensor) -> Tensor:
    """(b, 1, h, w) studio range: 16/255 for black to 235/255 for white, not rounded."""
    return (weighted_sum(image, BT601[0]) + BT601_OFFSETS[0]) / 255


def cbcr_bt601(image: Tensor) -> Tensor:
    """(b, 2, h, w) studio range, 128/255 for grey."""
    planes = [weighted_sum(image, row) + offset for row, offset in zip(BT601[1:], BT601_OFFSETS[1:], strict=True)]
    return torch.cat(planes, dim=1) / 255


def lightness(image: Tensor) -> Tensor:
    """(b, 1, h, w) CIE L* from 0 to 1."""
    return _lightness(weighted_sum(linear(image), XYZ_OF_RGB[1])) / 100


def linear(image: Tensor) -> Tensor:
    """Light instead of gamma-coded values; what is outside of 0 to 1 is clipped."""
    image = image.clamp(0, 1)
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def hsluv(image: Tensor) -> Tensor:
    """(b, 3, h, w) hue 0 to 360, saturation and lightness 0 to 100 (the specification at hsluv.org, revision 4).

    A grey has hue 0, black and white have no saturation, either. Gradients are finite everywhere.
    """
    light = linear(image)
    x, y, z = (weighted_sum(light, row) for row in XYZ_OF_RGB)
    level = _lightness(y)
    total = (x + 15 * y + 3 * z).clamp(min=1e-12)
    u = 13 * level * (4 * x / total - WHITE_U)
    v = 13 * level * (9 * y / total - WHITE_V)
    return torch.cat([_hue(u, v, level), _saturation(u, v, level), level], dim=1)


def _lightness(y: Tensor) -> Tensor:
    """CIE L* from 0 to 100 of Y from 0 to 1."""
    return torch.where(y > EPSILON, 116 * y.clamp(min=EPSILON) ** (1 / 3) - 16, KAPPA * y)


def _hue(u: Tensor, v: Tensor, level: Tensor) -> Tensor:
    grey = u.square() + v.square() <= (LEAST_CHROMA * level).square()
    degrees = torch.rad2deg(torch.atan2(torch.where(grey, 0.0, v), torch.where(grey, 1.0, u)))
    return torch.where(degrees < 0, degrees + 360, degrees)


def _saturation(u: Tensor, v: Tensor, level: Tensor) -> Tensor:
    """How far a colour is on the way from grey to the nearest of the six lines that bound sRGB at its lightness.

    A line is a * v = b * u + c in the plane of u and v. A point has reached (a * v - b * u) / c of the way to it, so
    neither chroma nor hue, which a grey lacks, are needed; the nearest line is the one with the largest share.
    """
    inside = (level > LEAST_L) & (level < MOST_L)
    level = level.clamp(LEAST_L, MOST_L)
    cubed = (level + 16) ** 3 / 1560896
    scaled = torch.where(cubed > EPSILON, cubed, level / KAPPA)
    shares = []
    for m1, m2, m3 in RGB_OF_XYZ:
        for top in (0, 1):
            across = (284517 * m1 - 94839 * m3) * scaled
            offset = ((838422 * m3 + 769860 * m2 + 731718 * m1) * scaled - 769860 * top) * level
            along = (632260 * m3 - 126452 * m2) * scaled + 126452 * top
            shares.append((along * v - across * u) / offset)
    share = torch.cat(shares, dim=1).amax(dim=1, keepdim=True)
    return torch.where(inside, (100 * share).clamp(0, 100), 0.0)
