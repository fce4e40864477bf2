"""Colour spaces against published points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_trainer.draws import torch_generator
from lora_trainer.losses.colour_spaces import cbcr_bt601, hsluv, lightness, luma_yiq, y_bt601

HSLUV = {  # 8-bit RGB -> hue, saturation, lightness, by the package hsluv 5.0.4, the authors' own
    (255, 0, 0): (12.177050630061776, 100.0, 53.23711559542933),
    (0, 255, 0): (127.71501294924047, 100.0, 87.73551910965973),
    (0, 0, 255): (265.8743202181779, 100.0, 32.30087290398002),
    (255, 255, 0): (85.87432021817473, 100.0, 97.13855934179674),
    (0, 255, 255): (192.1770506300612, 100.0, 91.11475231670507),
    (255, 0, 255): (307.7150129492436, 100.0, 60.322731354551294),
    (1, 0, 0): (12.177050630061776, 100.0, 0.058300256914765085),
    (0, 0, 1): (265.8743202181779, 100.0, 0.01979331362819538),
    (255, 255, 254): (85.87432021781939, 100.0, 99.97515675163538),
    (200, 100, 50): (26.482687012266716, 83.44859327663856, 53.62772334030197),
    (30, 60, 90): (246.15159349766793, 74.67720320973926, 24.46779543099978),
    (250, 128, 114): (16.835886331656493, 92.54668905253696, 67.26214672459797),
    (75, 0, 130): (279.3323335585678, 100.0, 20.47002208529272),
    (51, 204, 102): (134.8350558258884, 91.60396132934525, 72.79102483159734),
    (12, 34, 56): (247.36143360550938, 80.33177546638129, 12.656770438931506),
    (128, 128, 128): (0.0, 0.0, 53.585013452168866),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (255, 255, 255): (0.0, 0.0, 100.0),
}


def image_of(*colours: tuple[float, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """(1, 3, 1, n) of 8-bit colours."""
    return torch.tensor(colours, dtype=dtype).T.reshape(1, 3, 1, -1) / 255


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 0.02)])
def test_hsluv_points(dtype: torch.dtype, tolerance: float) -> None:
    found = hsluv(image_of(*HSLUV, dtype=dtype))[0, :, 0].T
    np.testing.assert_allclose(found, list(HSLUV.values()), rtol=0, atol=tolerance)


def scalar_hsluv(rgb: np.ndarray) -> tuple[float, float, float]:
    """The specification step by step, with slopes, intercepts and rays."""
    light = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in rgb]
    to_xyz = np.array([[0.41239079926595, 0.35758433938387, 0.18048078840183],
                       [0.21263900587151, 0.71516867876775, 0.072192315360733],
                       [0.019330818715591, 0.11919477979462, 0.95053215224966]])  # fmt: skip
    to_rgb = np.array([[3.240969941904521, -1.537383177570093, -0.498610760293],
                       [-0.96924363628087, 1.87596750150772, 0.041555057407175],
                       [0.055630079696993, -0.20397695888897, 1.056971514242878]])  # fmt: skip
    x, y, z = to_xyz @ light
    level = 903.2962962 * y if y <= 0.0088564516 else 116 * np.cbrt(y) - 16
    u = 13 * level * (4 * x / (x + 15 * y + 3 * z) - 0.19783000664283)
    v = 13 * level * (9 * y / (x + 15 * y + 3 * z) - 0.46831999493879)
    angle = np.arctan2(v, u)
    cubed = ((level + 16) / 116) ** 3
    scaled = cubed if cubed > 0.0088564516 else level / 903.2962962
    lengths = []
    for m1, m2, m3 in to_rgb:
        for t in (0, 1):
            bottom = (632260 * m3 - 126452 * m2) * scaled + 126452 * t
            slope = (284517 * m1 - 94839 * m3) * scaled / bottom
            intercept = ((838422 * m3 + 769860 * m2 + 731718 * m1) * level * scaled - 769860 * t * level) / bottom
            lengths.append(intercept / (np.sin(angle) - slope * np.cos(angle)))
    longest = min(length for length in lengths if length >= 0)
    return np.degrees(angle) % 360, np.hypot(u, v) / longest * 100, level


def test_hsluv_of_many_colours() -> None:
    colours = torch.rand(500, 3, dtype=torch.float64, generator=torch_generator("colours"))
    found = hsluv(colours.T.reshape(1, 3, 20, 25)).reshape(3, 500).T
    expected = np.array([scalar_hsluv(colour) for colour in colours.numpy()])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    in_float32 = hsluv(colours.float().T.reshape(1, 3, 20, 25)).reshape(3, 500).T.double().numpy()
    turned = np.abs(in_float32[:, 0] - expected[:, 0])
    assert np.minimum(turned, 360 - turned).max() < 0.05
    np.testing.assert_allclose(in_float32[:, 1:], expected[:, 1:], rtol=0, atol=0.01)


def test_greys_have_neither_hue_nor_saturation_in_float32() -> None:
    greys = torch.linspace(0, 1, 1001).expand(1, 3, 1, 1001)
    hue, saturation, level = hsluv(greys)[0]
    assert hue.abs().max() == 0
    assert saturation.max() < 0.1
    assert (level.diff() > 0).all()


def test_hsluv_gradients_are_finite_everywhere() -> None:
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1e-6, 0.04045, 0.5, 1 - 1e-6, 1.0, -0.2, 1.3])] * 3)
    image = corners.T.reshape(1, 3, 1, -1).clone().requires_grad_()
    hsluv(image).sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_studio_range_as_matlab_rounds_it() -> None:
    colours = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (100, 150, 200)]
    image = image_of(*colours)
    luma = (y_bt601(image) * 255).round().flatten().tolist()
    blue, red = (cbcr_bt601(image) * 255).round()[0, :, 0].tolist()
    assert luma == [16, 235, 81, 145, 41, 137]  # rgb2ycbcr's numbers
    assert blue == [128, 128, 90, 54, 240, 157]
    assert red == [128, 128, 240, 34, 110, 102]


def test_luma_and_lightness_by_hand() -> None:
    image = image_of((255, 0, 0), (0, 255, 0), (0, 0, 255), (119, 119, 119))
    assert luma_yiq(image).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114, 119 / 255])
    expected = [
        0.5323711559542933,
        0.8773551910965973,
        0.3230087290398002,
        0.5003442,
    ]  # L* of the primaries; a mid grey
    assert lightness(image).flatten().tolist() == pytest.approx(expected, abs=1e-5)
