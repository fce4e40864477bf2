"""Blur kernels against their formulas pixel by pixel, and filtering against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, ndimage

from lora_trainer.data.blur_kernels import (
    KINDS,
    Blur,
    apply_kernels,
    gaussian_line,
    reflected,
    sharpened,
    sinc_kernel,
    stack_kernels,
)

SIGMA_X, SIGMA_Y, ANGLE, BETA = 2.2, 0.9, 0.6, 1.7


def by_formula(kind: str, side: int) -> np.ndarray:
    """The kernel from S = R diag(sigma^2) R', inverted by numpy, a pixel at a time."""
    aniso = kind.endswith("aniso")
    angle, sigma_y = (ANGLE, SIGMA_Y) if aniso else (0.0, SIGMA_X)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.diag([SIGMA_X**2, sigma_y**2]) @ turn.T)
    beta = 1.0 if kind in ("iso", "aniso") else BETA
    values = np.zeros((side, side))
    for row in range(side):
        for column in range(side):
            place = np.array([column - side // 2, row - side // 2])
            q = float(place @ inverse @ place)
            values[row, column] = 1 / (1 + q**beta) if kind.startswith("plateau") else math.exp(-0.5 * q**beta)
    return values / values.sum()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [7, 21])
def test_kernels_are_those_of_the_paper(kind: str, side: int) -> None:
    sigma_y, angle = (SIGMA_Y, ANGLE) if kind.endswith("aniso") else (SIGMA_X, 0.0)
    beta = 1.0 if kind in ("iso", "aniso") else BETA
    found = Blur(kind, side, SIGMA_X, sigma_y, angle, beta).kernel()
    assert found.shape == (side, side)
    np.testing.assert_allclose(found, by_formula(kind, side), rtol=1e-12, atol=1e-18)
    assert found.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("cutoff", [math.pi / 5, 2.0, math.pi])
def test_sinc_is_the_inverse_transform_of_a_disc(cutoff: float) -> None:
    """Each pixel is the integral of the disc of frequencies, in one dimension: 2 sqrt(c^2 - u^2) cos(u r) du."""
    side = 9
    wanted = np.zeros((side, side))
    for row in range(side):
        for column in range(side):
            radius = math.hypot(row - 4, column - 4)

            def slice_at(u: float, radius: float = radius) -> float:
                return 2 * math.sqrt(max(0.0, cutoff**2 - u * u)) * math.cos(u * radius)

            wanted[row, column] = integrate.quad(slice_at, -cutoff, cutoff)[0]
    np.testing.assert_allclose(sinc_kernel(side, cutoff), wanted / wanted.sum(), atol=1e-7)


def test_opencv_gaussian_without_a_sigma() -> None:
    line = gaussian_line(51)  # 0.3 * (25 - 1) + 0.8
    assert line[25] / line[24] == pytest.approx(math.exp(0.5 / 8.0**2))
    assert line.sum() == pytest.approx(1)
    np.testing.assert_array_equal(gaussian_line(1), [1.0])


def test_kernels_are_padded_around_their_middle() -> None:
    small, large = Blur("iso", 3).kernel(), Blur("iso", 7).kernel()
    stacked = stack_kernels([small, large])
    assert (stacked.shape, stacked.dtype) == ((2, 7, 7), torch.float32)
    np.testing.assert_allclose(stacked[0, 2:5, 2:5].numpy(), small, rtol=1e-6)
    assert float(stacked[0].sum()) == pytest.approx(1) and int((stacked[0] == 0).sum()) == 40
    np.testing.assert_allclose(stacked[1].numpy(), large, rtol=1e-6)


@pytest.mark.parametrize("size", [(23, 31), (5, 8), (1, 6)])
def test_filtering_is_a_correlation_with_a_reflected_border(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(3))
    kernels = torch.rand(2, 11, 9, generator=torch.Generator().manual_seed(4))
    found = apply_kernels(images, kernels)
    for index in range(2):
        for channel in range(3):
            wanted = ndimage.correlate(
                images[index, channel].double().numpy(), kernels[index].double().numpy(), mode="mirror"
            )
            np.testing.assert_allclose(found[index, channel].numpy(), wanted, rtol=1e-5)


def test_a_small_picture_is_mirrored_again_and_again() -> None:
    line = torch.arange(3.0).view(1, 1, 1, 3)
    assert reflected(line, (5, 0)).flatten().tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]
    assert reflected(torch.ones(1, 1, 1, 1), (2, 2)).shape == (1, 1, 5, 5)


def test_a_picture_does_not_depend_on_its_neighbours() -> None:
    images, kernels = torch.rand(5, 3, 40, 33), torch.rand(5, 21, 21)
    together = apply_kernels(images, kernels)
    assert torch.equal(together[3:4], apply_kernels(images[3:4], kernels[3:4]))


def test_sharpening_is_real_esrgans_mask() -> None:
    """Against scipy: only where the picture is more than 10 levels from its blur, with the mask itself blurred."""
    image = torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(5)) * 0.1 + 0.4
    image[..., 20:] += 0.3
    found, side = sharpened(image, [9])[0].numpy(), 9
    line = np.exp(-0.5 * (np.arange(side) - side // 2) ** 2 / (0.3 * (side / 2 - 1.5) + 0.8) ** 2)

    def blurred(values: np.ndarray) -> np.ndarray:
        once = ndimage.convolve1d(values, line / line.sum(), axis=1, mode="mirror")
        return ndimage.convolve1d(once, line / line.sum(), axis=2, mode="mirror")

    picture = image[0].double().numpy()
    residual = picture - blurred(picture)
    mask = blurred((np.abs(residual) * 255 > 10).astype(float))
    wanted = mask * np.clip(picture + 0.5 * residual, 0, 1) + (1 - mask) * picture
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    assert 0.1 < (np.abs(wanted - picture) > 1e-3).mean() < 0.9


def test_sharpening_leaves_faint_differences_alone() -> None:
    faint = torch.full((1, 3, 20, 40), 0.5)
    faint[..., 20:] = 0.53  # less than 10 levels from its blur everywhere
    assert torch.equal(sharpened(faint, [7]), faint)
    image = torch.rand(1, 3, 9, 9)
    assert torch.equal(sharpened(image, [1]), image)


def test_a_blur_says_what_it_is() -> None:
    assert str(Blur("iso", 7, 1.5, 1.5)) == "iso 1.50"
    assert str(Blur("plateau_aniso", 7, 1.5, 0.25, 1.0, 1.2)) == "plateau_aniso 1.50/0.25"
    assert str(Blur("sinc", 7, cutoff=1.234)) == "sinc 1.23"
