"""The five degradations: functions of the key, nothing at strength 0, and each does what it is named after."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lora_trainer.data.camera_faults import GAMMA, blurred, underexposed
from lora_trainer.data.strokes import smeared, stroke
from lora_trainer.data.synthetic_degradations import DEGRADATIONS, degraded_picture
from lora_trainer.data.weather import AIRLIGHT, BETA, depth_proxy, hazy, rainy, snowy
from lora_trainer.draws import torch_generator


def flat(level: float, height: int = 96, width: int = 128) -> torch.Tensor:
    return torch.full((1, 3, height, width), level)


def checks() -> torch.Tensor:
    """A board of fields of eight pixels, 0.2 and 0.7."""
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(128), indexing="ij")
    return (0.2 + 0.5 * ((rows // 8 + columns // 8) % 2)).expand(1, 3, 96, 128).clone()


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_a_picture_follows_from_its_key(kind: str) -> None:
    pixels = (checks()[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    before = pixels.copy()
    made = degraded_picture(pixels, kind, 0.8, 3, "a")
    assert (made.shape, made.dtype) == (pixels.shape, np.uint8)
    assert np.array_equal(pixels, before)
    torch.rand(5)
    assert np.array_equal(degraded_picture(pixels, kind, 0.8, 3, "a"), made)
    for other in ((4, "a"), (3, "b")):
        assert not np.array_equal(degraded_picture(pixels, kind, 0.8, *other), made)
    odd = degraded_picture(pixels[:41, :33], kind, 0.8, 3, "a")
    assert odd.shape == (41, 33, 3)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_more_strength_is_farther_away_and_none_is_nothing(kind: str) -> None:
    image = checks()
    far = [
        float((DEGRADATIONS[kind](image, strength, torch_generator(kind)) - image).square().mean())
        for strength in (0.0, 0.3, 0.6, 1.0)
    ]
    assert far[0] < 1e-10
    assert 1e-4 < far[1] < far[2] < far[3]


def test_strokes() -> None:
    assert torch.equal(stroke(0, 0), torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]))
    disc = stroke(0, 0, radius_px=6)
    assert float(disc.sum()) == pytest.approx(math.pi * 36, rel=0.01)
    assert torch.equal(disc, disc.flip(0))
    line = stroke(10, 0)
    assert torch.equal(line.nonzero()[:, 0].unique(), torch.tensor([line.shape[0] // 2]))
    assert float(line.sum()) == pytest.approx(11)
    torch.testing.assert_close(stroke(10, math.pi / 2), line.T, rtol=0, atol=1e-5)
    bent = stroke(20, 0, bend=0.3)
    rows = bent.nonzero()[:, 0]
    assert int(rows.max() - rows.min()) >= 10


def test_smearing_is_a_convolution_that_keeps_the_brightness() -> None:
    point = torch.zeros(1, 1, 15, 17)
    point[..., 7, 9] = 1
    kernel = torch.arange(9.0).view(3, 3)
    torch.testing.assert_close(smeared(point, kernel)[0, 0, 6:9, 8:11], kernel, rtol=0, atol=1e-5)
    ones = torch.ones(1, 3, 9, 9)
    disc = stroke(0, 0, radius_px=12)
    torch.testing.assert_close(smeared(ones, disc / disc.sum()), ones)


def test_blur_keeps_the_light_and_takes_the_edges() -> None:
    image = checks()
    for number in range(4):
        made = blurred(image, 1.0, torch_generator(number))
        assert float((made**GAMMA).mean()) == pytest.approx(float((image**GAMMA).mean()), rel=0.05)
        assert made.diff(dim=-1).abs().max() < 0.9 * image.diff(dim=-1).abs().max()


def test_haze_is_the_law_of_the_atmosphere() -> None:
    """Contrast is the transmission; black and white see the same air."""
    dark, light = (hazy(flat(level), 1.0, torch_generator("air")) for level in (0.0, 0.5))
    transmission = (light - dark) / 0.5
    air = dark / (1 - transmission)
    assert (transmission[:, :1] - transmission).abs().max() < 1e-5
    assert float(air.std(dim=(2, 3)).max()) < 1e-4
    assert AIRLIGHT[0] - 0.02 <= float(air.min()) <= float(air.max()) <= AIRLIGHT[1] + 0.02
    assert transmission[..., :8, :].mean() < transmission[..., -8:, :].mean() - 0.1
    beta = -transmission[:, :1].log() / depth_proxy(96, 128, torch_generator("air"))
    assert BETA[0] <= float(beta.mean()) <= BETA[1]
    assert float(beta.std()) < 1e-4


def test_low_light_is_darker_and_noisy() -> None:
    made = underexposed(flat(0.5), 1.0, torch_generator("night"))
    light = (made**GAMMA).mean() / 0.5**GAMMA
    assert 2 ** -(4.5 + 0.25) < light < 2 ** -(2.5 - 0.25)
    signal, noise = made.mean(dim=(2, 3)), made.std(dim=(2, 3))
    assert (noise > 0.004).all()
    assert (noise < 0.3 * signal).all()


def test_rain_is_bright_streaks_that_fall() -> None:
    made = rainy(flat(0.3), 1.0, torch_generator("rain"))
    assert made.max() > made.median() + 0.1
    assert made.min() >= 0.29
    down, across = made.diff(dim=-2).abs().mean(), made.diff(dim=-1).abs().mean()
    assert across > 1.4 * down


def test_snow_is_white_spots_that_cover_part_of_the_picture() -> None:
    made = snowy(flat(0.3), 1.0, torch_generator("snow"))
    assert made.max() > 0.8
    covered = (made > made.median() + 0.1).float().mean()
    assert 0.03 < covered < 0.4
    few = snowy(flat(0.3), 0.2, torch_generator("snow"))
    assert (few > few.median() + 0.1).float().mean() < 0.4 * covered
