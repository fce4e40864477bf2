"""Augmentation: single transformations by what they do, all of them by a slow version, and their draws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_trainer.models.gan.augmentation import AugmentPipe, _filter_bank, augment
from lora_trainer.models.gan.augmentation_draws import (
    BGC,
    Augmentation,
    AugmentOptions,
    draw_augmentation,
    percentile_augmentation,
)
from lora_trainer.models.gan.wavelets import SYM2, SYM6
from tests.models.gan.slow_networks import upfirdn

NOTHING = AugmentOptions(**dict.fromkeys((*AugmentOptions.__dataclass_fields__,)[:15], 0.0))
KEYS = [(7, 3, position) for position in range(4)]


def pictures(count: int = 2, height: int = 16, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    rough = torch.randn(count, 3, height // 4, width // 4, generator=generator, dtype=torch.float64)
    return F.interpolate(rough, (height, width), mode="bicubic")


def only(percentile: float, size: tuple[int, int] = (16, 16), **multipliers: float) -> Augmentation:
    return percentile_augmentation(replace(NOTHING, **multipliers), size, 2, percentile)


def interior(images: Tensor) -> Tensor:
    return images[:, :, 5:-5, 5:-5]


@pytest.mark.parametrize("taps", [SYM2, SYM6])
def test_the_wavelets_are_orthogonal_with_all_their_vanishing_moments(taps: tuple[float, ...]) -> None:
    values = np.array(taps)
    assert values.sum() == pytest.approx(math.sqrt(2))
    for shift in range(0, len(taps), 2):
        assert values[shift:] @ values[: len(taps) - shift] == pytest.approx(float(shift == 0), abs=1e-9)
    signs = (-1.0) ** np.arange(len(taps))
    for moment in range(len(taps) // 2):
        assert (signs * values) @ (np.arange(len(taps)) / len(taps)) ** moment == pytest.approx(0, abs=1e-8)


def test_mirrors_and_quarter_turns() -> None:
    """Quarters go counter-clockwise. Within a tenth of a pixel: the wavelet is not quite symmetric."""
    images = pictures() / 4
    torch.testing.assert_close(augment(images, only(0.6, xflip=1)), images.flip(3), atol=0.04, rtol=0)
    for quarter in range(1, 4):
        found = augment(images, only(quarter / 4 + 0.1, rotate90=1))
        torch.testing.assert_close(found, torch.rot90(images, quarter, (2, 3)), atol=0.04, rtol=0)


def test_shifts_by_whole_pixels() -> None:
    images = pictures(2, 16, 24)
    found = augment(images, only(0.9, (16, 24), xint=1))  # 0.1 of each side: 1.6 and 2.4 pixels, rounded
    torch.testing.assert_close(found[:, :, 2:, 2:], images[:, :, :-2, :-2], atol=1e-6, rtol=0)


def test_scaling_keeps_the_centre_and_shrinks_by_the_factor() -> None:
    ramp = (torch.arange(32.0, dtype=torch.float64) - 15.5).expand(2, 3, 32, 32)
    factor = 2 ** (0.2 * math.erf(0) + 0.2 * float(torch.erfinv(torch.tensor(0.4, dtype=torch.float64))))
    found = augment(ramp, only(0.7, (32, 32), scale=1))
    torch.testing.assert_close(found[:, :, 12:20, 12:20], ramp[:, :, 12:20, 12:20] / factor, atol=0.02, rtol=0)
    found = augment(ramp, only(0.7, (32, 32), aniso=1))
    assert torch.allclose(found[:, :, 12:20, 12:20], ramp[:, :, 12:20, 12:20] / factor, atol=0.02)
    found = augment(ramp.transpose(2, 3), only(0.7, (32, 32), aniso=1)).transpose(2, 3)
    assert torch.allclose(found[:, :, 12:20, 12:20], ramp[:, :, 12:20, 12:20] * factor, atol=0.02)


def test_a_turn_goes_by_its_angle() -> None:
    place = torch.arange(32.0, dtype=torch.float64) - 15.5
    ramp = place.expand(2, 3, 32, 32)
    found = augment(ramp, only(0.625, (32, 32), rotate=1))  # an eighth of a turn, once
    wanted = math.sqrt(0.5) * (place[None, :] - place[:, None])
    assert torch.allclose(found[0, 0, 12:20, 12:20], wanted[12:20, 12:20], atol=0.06)


def by_zero_insertion(images: Tensor, inverse: Tensor) -> Tensor:
    """As the published pipeline describes it, with margins as large as a mirror allows."""
    b, c, h, w = images.shape
    padded = F.pad(images, (w - 1, w - 1, h - 1, h - 1), mode="reflect")
    taps = torch.tensor(SYM6, dtype=images.dtype)
    taps = taps / taps.sum()
    fine = upfirdn(F.pad(padded, (3, 3, 3, 3)), taps, up=2, pad=(0, -1), gain=4)
    rows = torch.arange((h + 6) * 2, dtype=images.dtype)
    result = images.new_zeros(b, c, (h + 6) * 2, (w + 6) * 2)
    for sample in range(b):
        for row in rows:
            columns = torch.arange((w + 6) * 2, dtype=images.dtype)
            x, y = columns / 2 - 3 - (w - 1) / 2, (row / 2 - 3 - (h - 1) / 2).expand(len(columns))
            source = inverse[sample] @ torch.stack([x, y, torch.ones_like(x)])
            u, v = 2 * (source[0] + (w - 1) / 2 + w - 1), 2 * (source[1] + (h - 1) / 2 + h - 1)
            grid = torch.stack([(2 * u + 1) / fine.shape[3] - 1, (2 * v + 1) / fine.shape[2] - 1], -1)
            line = F.grid_sample(fine[sample : sample + 1], grid[None, None], align_corners=False)
            result[sample, :, int(row)] = line[0, :, 0]
    return upfirdn(result, taps.flip(0), down=2, pad=(-1, -1))


def test_geometry_as_a_whole_is_that_of_a_slow_version() -> None:
    images = pictures(3, 16, 12)
    how = draw_augmentation(BGC, 0.9, (16, 12), KEYS[:3])
    assert how.inverse is not None
    wanted = by_zero_insertion(images, how.inverse)
    found = augment(images, Augmentation(inverse=how.inverse))
    near = (how.inverse[:, :2, :2].norm(dim=(1, 2)) < 2.2) & (how.inverse[:, :2, 2].abs().amax(1) < 4)
    assert near.any()  # the others reach beyond the mirrored border, whose size may then show
    torch.testing.assert_close(found[near], wanted[near], atol=1e-5, rtol=0)


def test_colours() -> None:
    images = pictures()
    offset = 0.2 * float(torch.erfinv(torch.tensor(0.6)))
    found = augment(images, only(0.8, brightness=1))
    torch.testing.assert_close(found, images + offset, atol=1e-6, rtol=0)
    factor = 2 ** (0.5 * float(torch.erfinv(torch.tensor(0.6))))
    torch.testing.assert_close(augment(images, only(0.8, contrast=1)), images * factor, atol=1e-5, rtol=0)
    mean = images.mean(1, keepdim=True)
    torch.testing.assert_close(augment(images, only(0.8, lumaflip=1)), images - 2 * mean)
    factor = 2 ** float(torch.erfinv(torch.tensor(0.6)))
    torch.testing.assert_close(
        augment(images, only(0.8, saturation=1)), mean + (images - mean) * factor, atol=1e-5, rtol=0
    )
    third = augment(images, only(0.5 + 1 / 3, hue=1))  # a third of a turn passes red on to green
    torch.testing.assert_close(third, images.roll(1, 1))
    gray = augment(images[:, :1], only(0.8, brightness=1, contrast=1, lumaflip=1))
    full = augment(images[:, :1].repeat(1, 3, 1, 1), only(0.8, brightness=1, contrast=1, lumaflip=1))
    torch.testing.assert_close(gray, full.mean(1, keepdim=True))


def test_band_filters() -> None:
    bank = _filter_bank()
    assert bank.shape == (4, 43)
    identity = torch.zeros(43, dtype=bank.dtype)
    identity[21] = 1
    torch.testing.assert_close(bank.sum(0), identity, atol=1e-9, rtol=0)
    spectra = torch.fft.rfft(bank, 256).abs()
    peaks = [int(each.argmax()) for each in spectra]
    assert peaks[0] == 0
    assert peaks[3] == 128
    assert sorted(peaks) == peaks
    images = pictures()
    torch.testing.assert_close(augment(images, Augmentation(bands=torch.ones(2, 4, dtype=torch.float64))), images)
    how = draw_augmentation(replace(NOTHING, imgfilter=1), 1.0, (16, 16), KEYS)
    assert how.bands is not None
    powers = torch.tensor([10, 1, 1, 1], dtype=torch.float64) / 13
    assert torch.allclose((how.bands**2 @ powers), torch.ones(4, dtype=torch.float64), atol=0.5)
    assert augment(images, how[:2]).shape == images.shape


def test_noise_and_cutout() -> None:
    images = pictures()
    how = draw_augmentation(replace(NOTHING, noise=1, cutout=1), 1.0, (16, 16), KEYS[:2])
    assert how.noise is not None
    noisy = augment(images, replace(how, cutout=None)) - images
    torch.testing.assert_close(noisy.std((1, 2, 3)), how.noise, rtol=0.1, atol=0)
    torch.testing.assert_close(augment(images[1:], how[1:]), augment(images, how)[1:])
    cut = augment(torch.ones_like(images), only(0.5, cutout=1))
    assert cut[:, :, 4:12, 4:12].abs().max() == 0
    assert cut.mean() == 0.75


def test_nothing_happens_at_0_and_the_probability_is_clamped_at_1() -> None:
    images = pictures(4)
    pipe = AugmentPipe()
    assert torch.equal(pipe(images, 0.0, KEYS), images)
    assert torch.equal(pipe(images, 34.0, KEYS), pipe(images, 1.0, KEYS))


def test_an_images_draw_follows_from_its_key_alone() -> None:
    images = pictures(4)
    pipe = AugmentPipe()
    # rounded alike, since the largest margin of a batch pads all of it
    whole, part = pipe(images, 0.8, KEYS), pipe(images[1:3], 0.8, KEYS[1:3])
    torch.testing.assert_close(whole[1:3], part, atol=1e-6, rtol=0)
    assert not torch.allclose(pipe(images, 0.8, [(7, 4, position) for position in range(4)]), whole)


def test_about_p_of_the_images_change_in_one_way() -> None:
    keys = [(1, 2, position) for position in range(2000)]
    how = draw_augmentation(replace(NOTHING, contrast=0.5), 0.6, (8, 8), keys)
    assert how.inverse is None
    assert how.colours is not None
    changed = (how.colours != torch.eye(4)).any(1).any(1).double().mean()
    assert float(changed) == pytest.approx(0.3, abs=0.03)
    turned = draw_augmentation(replace(NOTHING, rotate=1), 0.36, (8, 8), keys).inverse
    assert turned is not None
    assert float((turned[:, 0, 1] != 0).double().mean()) == pytest.approx(0.36, abs=0.03)


def test_gradients_of_any_order_reach_the_images() -> None:
    images = pictures(2, 8, 8)[:, :1].requires_grad_()
    how = draw_augmentation(BGC, 1.0, (8, 8), KEYS[:2])

    def squared(images: Tensor) -> Tensor:
        return augment(images, how).square()[:, :, ::3, ::3]

    assert torch.autograd.gradcheck(squared, images)
    assert torch.autograd.gradgradcheck(squared, images)


def test_only_colours_and_grays_are_known() -> None:
    with pytest.raises(ValueError, match=r"Image must be RGB \(3 channels\) or L \(1 channel\), not of 4 channels"):
        augment(torch.zeros(1, 4, 8, 8), Augmentation())
