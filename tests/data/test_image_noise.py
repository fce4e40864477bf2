"""The strength of noise, and what it keeps."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.data.image_noise import gaussian_noise, poisson_noise

MIDDLE = torch.full((1, 3, 200, 200), 0.5)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_gaussian_noise_has_its_strength_in_levels() -> None:
    noise = gaussian_noise(MIDDLE, 10, False, generator()) - MIDDLE
    assert float(noise.std() * 255) == pytest.approx(10, rel=0.02)
    assert float(noise.mean() * 255) == pytest.approx(0, abs=0.1)
    assert abs(float((noise[0, 0] * noise[0, 1]).mean() / noise.var())) < 0.02


@pytest.mark.parametrize("add", [gaussian_noise, poisson_noise])
def test_grey_noise_is_the_same_in_all_colours(add: object) -> None:
    image = torch.rand(1, 3, 32, 32) * 0.2 + 0.4
    noise = add(image, 1.0, True, generator()) - image  # type: ignore[operator]
    torch.testing.assert_close(noise[:, 0], noise[:, 1], atol=1e-6, rtol=0)
    torch.testing.assert_close(noise[:, 0], noise[:, 2], atol=1e-6, rtol=0)
    assert noise.abs().max() > 1e-3


@pytest.mark.parametrize("level", [0.25, 0.5])
def test_shot_noise_grows_with_the_light(level: float) -> None:
    """With 256 levels in the picture, a level's variance is level / 256 of full light."""
    image = torch.full((1, 3, 256, 256), level)
    image[0, :, 0, :] = torch.arange(256) / 255  # so that every level occurs
    noise = (poisson_noise(image, 1.0, False, generator()) - image)[..., 1:, :]
    rounded = round(level * 255) / 255
    assert float(noise.var()) == pytest.approx(rounded / 256, rel=0.03)
    assert float(noise.mean()) == pytest.approx(0, abs=2e-3)


def test_noise_stays_in_the_picture_and_follows_its_generator() -> None:
    image = torch.rand(1, 3, 16, 16)
    for add in (gaussian_noise, poisson_noise):
        first, second = (add(image, 30.0, False, generator()) for _ in range(2))
        assert torch.equal(first, second)
        assert first.min() >= 0 and first.max() <= 1
