"""The schedule against diffusers', number by number."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from lora_trainer.losses.noise_schedule import add_noise, alphas_cumprod, snr_table, velocity


def reference(zero_terminal_snr: bool) -> DDPMScheduler:
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        rescale_betas_zero_snr=zero_terminal_snr,
    )


def test_plain_schedule_is_equal_bit_for_bit() -> None:
    assert torch.equal(alphas_cumprod(), reference(False).alphas_cumprod)


def test_zero_terminal_snr() -> None:
    ours, theirs = alphas_cumprod(zero_terminal_snr=True), reference(True).alphas_cumprod
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert ours.dtype == torch.float32
    assert ours[-1] == 0
    assert ours[0] == alphas_cumprod()[0]
    assert (ours.diff() < 0).all()


def test_snr_by_hand() -> None:
    torch.testing.assert_close(snr_table(torch.tensor([0.8, 0.5, 0.0])), torch.tensor([4.0, 1.0, 0.0]))
    table = snr_table(alphas_cumprod())
    assert table[0].item() == pytest.approx(0.99915 / 0.00085, rel=1e-3)
    assert table[999].item() == pytest.approx(0.00468, abs=1e-5)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_add_noise_and_velocity(zero_terminal_snr: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 4, 4, 6, 5, generator=generator)
    timesteps = torch.tensor([0, 1, 500, 999])
    alphas = alphas_cumprod(zero_terminal_snr=zero_terminal_snr)
    scheduler = reference(zero_terminal_snr)
    noisy = add_noise(latents, noise, timesteps, alphas)
    torch.testing.assert_close(noisy, scheduler.add_noise(latents, noise, timesteps), rtol=1e-4, atol=1e-5)
    target = velocity(latents, noise, timesteps, alphas)
    torch.testing.assert_close(target, scheduler.get_velocity(latents, noise, timesteps), rtol=1e-4, atol=1e-5)
    if zero_terminal_snr:
        assert torch.equal(noisy[3], noise[3])
        assert torch.equal(target[3], -latents[3])


def test_half_precision_stays_half() -> None:
    latents = torch.ones(1, 4, 2, 2, dtype=torch.bfloat16)
    assert add_noise(latents, latents, torch.tensor([3]), alphas_cumprod()).dtype == torch.bfloat16
