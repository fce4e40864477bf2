"""The HSLuv loss against its definition, colour by colour."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.losses.colour_spaces import hsluv
from lora_trainer.losses.hsluv import hsluv_loss

RED, GREEN, BLUE, GREY, BLACK, WHITE = (
    (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0),
)  # fmt: skip


def flat(*colour: float) -> torch.Tensor:
    return torch.tensor(colour, dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 4, 4)


def parts(x: tuple[float, ...], y: tuple[float, ...], criterion: str = "l1") -> list[float]:
    found = hsluv_loss(flat(*x), flat(*y), criterion)
    assert list(found) == ["hue", "saturation", "lightness"]
    return [value.item() for value in found.values()]


def test_opposite_hues_by_hand() -> None:
    # hues 12.177 and 265.874: 106.303 degrees apart the short way; lightness 53.237 and 32.301; both fully saturated
    assert parts(RED, BLUE) == pytest.approx([2 * (360 - 253.6972696) / 360, 0, 0.5323711560 - 0.3230087290], abs=1e-6)


def test_a_grey_against_a_colour() -> None:
    # the hue differs by the red's saturation; the weights are 1 - .5324 for the red and 1 - .5339 for the grey
    grey = 0.5338896  # L* of 0.5
    expected = [1, (1 - 0.5323711560) + (1 - grey), grey - 0.5323711560]
    assert parts(RED, GREY) == pytest.approx(expected, abs=2e-6)
    assert parts(GREY, RED) == pytest.approx(expected, abs=2e-6)


def test_greys_black_and_white_have_no_hue() -> None:
    assert parts(GREY, (0.6, 0.6, 0.6))[0] == 0
    assert parts(BLACK, (0.0, 0.0, 0.2))[0] == 0  # both darker than .1
    assert parts((1.0, 1.0, 0.9), (0.9, 1.0, 1.0))[0] == 0  # both brighter than .9
    assert parts((1.0, 1.0, 0.9), RED)[0] > 0.1  # only one of them
    assert parts(BLACK, WHITE) == pytest.approx([0, 0, 1])


def test_criteria_are_of_saturation_and_lightness() -> None:
    plain, square = parts(RED, GREEN), parts(RED, GREEN, "l2")
    assert square[0] == plain[0]
    assert square[2] == pytest.approx(plain[2] ** 2)
    assert parts(RED, GREEN, "charbonnier") == pytest.approx(plain, abs=1e-5)
    with pytest.raises(Refusal, match="there is no criterion 'l3'"):
        parts(RED, GREEN, "l3")


def test_pictures_pixel_by_pixel() -> None:
    x = torch.rand(2, 3, 8, 9, dtype=torch.float64, generator=torch_generator("x"))
    y = torch.rand(2, 3, 8, 9, dtype=torch.float64, generator=torch_generator("y"))
    expected = np.zeros((3, 2))
    for sample in range(2):
        (hx, sx, lx), (hy, sy, ly) = (hsluv(image)[sample].reshape(3, -1).numpy() for image in (x, y))
        for a, b, s, t, p, q in zip(hx / 360, hy / 360, sx / 100, sy / 100, lx / 100, ly / 100, strict=True):
            hue = 2 * min(abs(a - b), 1 - abs(a - b))
            if s < 0.1 and t < 0.1:
                hue = 0
            elif s < 0.1 or t < 0.1:
                hue = max(s, t)
            if max(p, q) < 0.1 or min(p, q) > 0.9:
                hue = 0
            weight = min(p, 1 - p) + min(q, 1 - q)
            expected[:, sample] += np.array([hue, abs(s - t) * weight, abs(p - q)]) / 72
    np.testing.assert_allclose(torch.stack(list(hsluv_loss(x, y).values())), expected, rtol=1e-9)


def test_downscale_factor_makes_the_pictures_smaller_first() -> None:
    x = torch.rand(1, 3, 16, 16, generator=torch_generator("x"))
    y = torch.rand(1, 3, 16, 16, generator=torch_generator("y"))
    small = [F.interpolate(image, size=(8, 8), mode="bicubic", antialias=True).clamp(0, 1) for image in (x, y)]
    for found, wanted in zip(hsluv_loss(x, y, "l1", 2).values(), hsluv_loss(*small).values(), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("start", [BLACK, WHITE, GREY, RED, BLUE])
@pytest.mark.parametrize("target", [BLACK, WHITE, GREY, RED])
def test_gradients_are_finite(start: tuple[float, ...], target: tuple[float, ...]) -> None:
    x = flat(*start).float().clone().requires_grad_()
    sum(hsluv_loss(x, flat(*target).float(), "charbonnier").values()).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
