"""Half-precision pictures are compared in float32, in and out of autocast."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.draws import torch_generator
from lora_trainer.losses.full_precision import full_precision
from lora_trainer.losses.ms_ssim_l1 import ms_ssim_l1_loss


@full_precision
def product(x: torch.Tensor, y: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """What autocast would round."""
    return scale * (x @ y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_arrives_as_float32(dtype: torch.dtype) -> None:
    x = torch.full((2, 2), 300.0, dtype=dtype)
    result = product(x, y=x, scale=2.0)
    assert result.dtype == torch.float32
    assert result[0, 0] == 2 * 2 * 300.0**2  # float16 ends at 65504


def test_autocast_is_off_within_and_on_after() -> None:
    x = torch.full((2, 2), 1.001)
    with torch.autocast("cpu", torch.bfloat16):
        inside = product(x, x)
        assert (x @ x).dtype == torch.bfloat16
    assert inside.dtype == torch.float32
    assert float(inside[0, 0]) == pytest.approx(2 * 1.001**2, rel=1e-6)


def test_float64_stays() -> None:
    x = torch.eye(2, dtype=torch.float64)
    assert product(x, x).dtype == torch.float64


def test_a_loss_is_the_same_under_autocast() -> None:
    x = torch.rand(2, 3, 40, 40, generator=torch_generator("x"))
    y = torch.rand(2, 3, 40, 40, generator=torch_generator("y"))
    plain = ms_ssim_l1_loss(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ms_ssim_l1_loss(x, y), plain)


def test_the_name_and_the_text_are_kept() -> None:
    assert product.__name__ == "product"
    assert product.__doc__ == "What autocast would round."
