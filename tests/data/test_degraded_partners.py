"""Degraded partners of clean pictures: same size, worse, and a function of the key."""

from __future__ import annotations

import torch

from lora_trainer.data.degradation import DegradationSettings
from lora_trainer.data.degraded_partners import degraded_partners, sharpened_originals
from lora_trainer.draws import torch_generator
from lora_trainer.losses.pixel import per_sample, squared

SETTINGS = DegradationSettings(blur_prob=1, gaussian_noise_prob=0.5, noise_range=(1, 30), poisson_scale_range=(0.05, 3))


def clean(count: int = 3) -> torch.Tensor:
    """Smooth pictures with one edge."""
    small = torch.rand(count, 3, 5, 6, generator=torch_generator("clean"))
    image = torch.nn.functional.interpolate(small, (40, 48), mode="bicubic").clamp(0, 1)
    image[..., 20:] = 1 - image[..., 20:]
    return image


def test_partners_have_the_size_and_follow_from_key_and_pixels() -> None:
    gt = clean()
    lq = degraded_partners(gt, [1, 2, 3], SETTINGS, 4)
    assert lq.shape == gt.shape
    assert lq.min() >= 0
    assert lq.max() <= 1
    assert torch.equal(degraded_partners(gt[1:2], [2], SETTINGS, 4), lq[1:2])
    assert not torch.equal(degraded_partners(gt[1:2], [4], SETTINGS, 4), lq[1:2])
    assert (per_sample(squared(lq, gt)) > 1e-3).all()


def test_a_size_that_four_does_not_divide_stays() -> None:
    assert degraded_partners(clean(1)[..., :39, :47], [1], SETTINGS, 4).shape == (1, 3, 39, 47)


def test_edges_of_sharpened_originals_are_steeper() -> None:
    gt = 0.3 + 0.4 * clean()
    sharp = sharpened_originals(gt)

    def slope(image: torch.Tensor) -> torch.Tensor:
        return (image[..., 20] - image[..., 19]).abs().mean()

    assert slope(sharp) > 1.1 * slope(gt)
    assert 0 <= sharp.min() <= sharp.max() <= 1
