"""Against each sample's own weights, in both ways of computing and with all derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lora_trainer.models.gan.filtering import factors_of, normalized_filter
from lora_trainer.models.gan.modulated_convolution import bounded, demodulation, modulated_conv2d
from tests.models.gan.slow_networks import modulated, upfirdn

TAPS = (1, 3, 3, 1)


def inputs(kernel: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(kernel)
    shapes = ((2, 3, 4, 5), (2, 3, kernel, kernel), (2, 3))
    return tuple(  # type: ignore[return-value]
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes
    )


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("kernel", "up"), [(1, False), (3, False), (3, True)])
def test_it_is_a_convolution_with_each_samples_own_weights(kernel: int, up: bool, demodulate: bool) -> None:
    x, weight, styles = inputs(kernel)
    factors = factors_of(normalized_filter(TAPS)) if up else None

    def ours(x: Tensor, weight: Tensor, styles: Tensor) -> Tensor:
        scales = demodulation(weight, styles) if demodulate else None
        return modulated_conv2d(x, weight, styles, scales, padding=kernel // 2, up_factors=factors)

    wanted = modulated(x, weight, styles, demodulate, kernel // 2, up)
    if up:
        wanted = upfirdn(wanted, torch.tensor(TAPS) / 8, pad=(1, 1), gain=4)
    torch.testing.assert_close(ours(x, weight, styles), wanted)
    assert torch.autograd.gradcheck(ours, (x, weight, styles))
    assert torch.autograd.gradgradcheck(ours, (x, weight, styles))


def test_float16_is_given_numbers_that_it_can_hold() -> None:
    _, weight, styles = inputs(3)
    small, tame = bounded(weight * 1e6, styles * 1e5, torch.float16)
    assert small.abs().max() <= 1 / 27**0.5 + 1e-9
    assert tame.abs().max() == 1
    whole = demodulation(weight, styles)[:, :, None] * weight[None, :, :, 1, 1] * styles[:, None]
    again = demodulation(small, tame)[:, :, None] * small[None, :, :, 1, 1] * tame[:, None]
    torch.testing.assert_close(again, whole, rtol=1e-6, atol=0)
    assert bounded(weight, styles, torch.bfloat16) == (weight, styles)
