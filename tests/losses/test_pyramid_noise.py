"""The pyramid's levels, and noise on captions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lora_trainer.draws import torch_generator
from lora_trainer.losses.pyramid_noise import caption_perturbation, pyramid_noise


def coarse_share(noise: torch.Tensor) -> float:
    """How much of the variance is left after averaging over 8 x 8 blocks."""
    return float(F.avg_pool2d(noise[None], 8).var() / noise.var())


def test_a_pyramid_is_coarser_than_white_noise_and_as_strong() -> None:
    white = torch.randn(4, 64, 64, generator=torch_generator("white"))
    shares = [coarse_share(pyramid_noise(white, discount, torch_generator(1))) for discount in (0.1, 0.4, 0.8)]
    assert coarse_share(white) < shares[0] < shares[1] < shares[2]
    made = pyramid_noise(white, 0.4, torch_generator(1))
    assert float(made.std()) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(made, pyramid_noise(white, 0.4, torch_generator(1)))
    assert not torch.equal(made, pyramid_noise(white, 0.4, torch_generator(2)))


def test_the_first_two_levels_by_hand() -> None:
    white = torch.randn(2, 4, 4, generator=torch_generator("white"))
    generator = torch_generator(3)
    torch.rand((), generator=generator)
    total = white + torch.randn(2, 4, 4, generator=generator)
    side = max(1, int(4 / (2 + 2 * float(torch.rand((), generator=generator)))))
    assert side == 1  # the pyramid ends here
    total += 0.5 * torch.randn(1, 2, side, side, generator=generator)[0]
    torch.testing.assert_close(pyramid_noise(white, 0.5, torch_generator(3)), total / total.std())


def test_perturbation_is_weaker_for_wider_captions() -> None:
    narrow, wide = (caption_perturbation(77, width, 2.0, torch_generator(1)) for width in (64, 1024))
    assert (narrow.shape, wide.shape) == ((77, 64), (77, 1024))
    assert float(narrow.std()) == pytest.approx(2 / 8, rel=0.05)
    assert float(wide.std()) == pytest.approx(2 / 32, rel=0.05)
