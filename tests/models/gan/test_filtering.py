"""Banded matrices against zeros, a convolution and a choice of samples, in every mode and both sizes of matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_trainer.models.gan import filtering
from lora_trainer.models.gan.filtering import (
    FilterFactors,
    downsample,
    factors_of,
    normalized_filter,
    plan_resample,
    resample,
    upsample,
)


def by_zero_insertion(
    x: Tensor, kernel: Tensor, up: int, down: int, padding: tuple[int, int, int, int], flip: bool, gain: float
) -> Tensor:
    b, c, h, w = x.shape
    zeros = x.new_zeros(b, c, h * up, w * up)
    zeros[:, :, ::up, ::up] = x
    padded = F.pad(zeros, padding).reshape(b * c, 1, h * up + sum(padding[2:]), w * up + sum(padding[:2]))
    square = torch.outer(kernel, kernel) if kernel.ndim == 1 else kernel
    square = square.to(x.dtype) if flip else square.to(x.dtype).flip(0, 1)
    result = F.conv2d(padded, square[None, None]) * gain
    return result.view(b, c, *result.shape[2:])[:, :, ::down, ::down]


CASES = {
    "up 2, lopsided filter": ([1, 2, 4, 1, 3, 0, 2, 5, 1], 2, 1, (5, 4, 3, 7), False),
    "up 4, cropping": (list(range(1, 25)), 4, 1, (-6, -9, -6, -9), False),
    "down 2": ([1, 3, 3, 1], 1, 2, (1, 1, 2, 2), False),
    "down 2, flipped": ([1, 2, 4, 1, 3, 0, 2, 5, 1], 1, 2, (-1, -1, 0, 3), True),
    "up 3 and down 2": ([1, 5, 2, 4, 4, 3, 1, 2, 1], 3, 2, (2, 3, 4, 1), False),
    "up 2 and down 4": ([1, 5, 2, 4, 4, 3, 1, 2, 1], 2, 4, (2, 3, 4, 1), True),
    "only filtered": ([2, 1, 1], 1, 1, (1, 1, 1, 1), False),
}


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_a_plan_is_the_operation_it_stands_for(case: str, dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taps, up, down, padding, flip = CASES[case]
    if not dense:
        monkeypatch.setattr(filtering, "DENSE_UP_TO", 0)
    for size in ((23, 40), (70, 31)):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        kernel = normalized_filter(taps)
        plan = plan_resample(factors_of(kernel), size, up=up, down=down, padding=padding, flip=flip, gain=1.7)
        wanted = by_zero_insertion(x, kernel, up, down, padding, flip, 1.7)
        assert plan.out_size == wanted.shape[2:]
        torch.testing.assert_close(resample(x, plan), wanted, rtol=0, atol=2e-7)  # a 4 x 4 filter is stored in float32


@pytest.mark.parametrize("dense", [True, False])
def test_first_and_second_derivatives_are_exact(dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not dense:
        monkeypatch.setattr(filtering, "DENSE_UP_TO", 0)
        monkeypatch.setattr(filtering, "WINDOW", 4)
    x = torch.randn(1, 1, 7, 6, dtype=torch.float64, requires_grad=True)
    plan = plan_resample(factors_of(normalized_filter([1, 2, 4, 1, 3, 0, 2, 5])), (7, 6), up=2, padding=(3, 4, 5, 3))
    down = plan_resample(factors_of(normalized_filter([1, 3, 2])), plan.out_size, down=2)

    def both(x: Tensor) -> Tensor:
        return resample(resample(x, plan).square(), down)

    assert torch.autograd.gradcheck(both, x)
    assert torch.autograd.gradgradcheck(both, x)


def test_the_gradient_keeps_no_image() -> None:
    kept: list[Tensor] = []
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        upsample(x, factors_of(normalized_filter([1, 3, 3, 1])))
    assert not kept


def test_a_filter_of_two_dimensions_is_a_sum_of_passes() -> None:
    places = torch.arange(12, dtype=torch.float64) - 5.5
    radius = torch.hypot(places[:, None], places)
    kernel = torch.special.bessel_j1(radius) / radius * torch.exp(-radius.square() / 20)
    factors = factors_of(kernel)
    summed = sum(torch.outer(torch.tensor(v), torch.tensor(h)) for v, h in factors)
    assert 2 <= len(factors) <= 6
    assert (summed - kernel).abs().max() < 1e-6 * kernel.norm()
    assert len(factors_of(normalized_filter([1, 3, 3, 1]))) == 1
    x = torch.randn(1, 1, 30, 30, dtype=torch.float64)
    found = resample(x, plan_resample(factors, (30, 30), down=2))
    torch.testing.assert_close(found, by_zero_insertion(x, kernel, 1, 2, (0, 0, 0, 0), False, 1), rtol=0, atol=1e-6)


def test_brightness_and_place_stay() -> None:
    factors = factors_of(normalized_filter([1, 3, 3, 1]))
    flat = torch.full([1, 1, 12, 12], 0.7)
    assert torch.allclose(upsample(flat, factors)[:, :, 4:-4, 4:-4], torch.tensor(0.7))
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    wider = upsample(ramp, factors)[0, 0, 12, 4:-4]
    assert torch.allclose(wider, torch.arange(4, 20) / 2 - 0.25, atol=1e-5)  # the same edges, half the pixel
    assert torch.allclose(downsample(ramp, factors)[0, 0, 3, 1:-1], torch.arange(1.0, 5.0) * 2 + 0.5, atol=1e-5)


def test_lists_of_few_taps_are_stored_in_two_dimensions() -> None:
    assert normalized_filter([1, 3, 3, 1]).shape == (4, 4)
    assert normalized_filter([1, 3, 3, 1]).sum() == 1
    assert normalized_filter(range(1, 13)).shape == (12,)


def test_factors_follow_the_buffer() -> None:
    buffer, factors = torch.tensor([1.0, 2.0]), FilterFactors()
    first = factors.of(buffer)
    assert factors.of(buffer) is first
    buffer.copy_(torch.tensor([3.0, 4.0]))
    assert factors.of(buffer) == (((3.0, 4.0), (3.0, 4.0)),)
    assert factors.of(torch.tensor([5.0])) == (((5.0,), (5.0,)),)
    assert factors.of(None) == (((1.0,), (1.0,)),)


def test_too_small_an_image_is_said() -> None:
    with pytest.raises(ValueError, match="3 samples with padding 0, 0 are fewer than the 12 taps need"):
        plan_resample(factors_of(normalized_filter(range(1, 13))), (3, 3))
