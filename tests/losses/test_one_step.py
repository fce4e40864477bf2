"""One step's formulas against numbers worked out by hand, and against diffusers."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler

from lora_trainer.losses.noise_schedule import add_noise, alphas_cumprod, velocity
from lora_trainer.losses.one_step import Shares, clean_latents, nearer_to_input, sampled_latents, shares_at


@pytest.mark.parametrize(("timestep", "kept"), [(50, 0.951577), (100, 0.894223), (200, 0.753692), (300, 0.590501)])
def test_the_shares_of_published_timesteps(timestep: int, kept: float) -> None:
    shares = shares_at(timestep)
    assert shares.signal**2 == pytest.approx(kept, abs=5e-7)
    assert shares.noise**2 == pytest.approx(1 - kept, abs=5e-7)


def test_by_hand() -> None:
    shares = Shares(signal=0.8, noise=0.6)
    latents, answer = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.5]])
    assert clean_latents(latents, answer, shares).tolist() == [pytest.approx([1.75, -1.625])]
    assert clean_latents(latents, answer, shares, "v_prediction").tolist() == [pytest.approx([1.0, -1.1])]


def test_the_formula_at_timestep_200() -> None:
    """(1 - sqrt(0.246308) * 0.5) / sqrt(0.753692) = (1 - 0.496294 * 0.5) / 0.868154"""
    found = clean_latents(torch.ones(1, 4, 2, 2), torch.full((1, 4, 2, 2), 0.5), shares_at(200))
    expected = (1 - math.sqrt(1 - 0.753692) * 0.5) / math.sqrt(0.753692)
    assert expected == pytest.approx(0.866036, abs=1e-6)
    torch.testing.assert_close(found, torch.full((1, 4, 2, 2), expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_diffusers_takes_the_same_for_the_clean_latents(prediction: str) -> None:
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, prediction_type=prediction
    )
    generator = torch.Generator().manual_seed(0)
    latents, answer = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    for timestep in (0, 1, 200, 999):
        wanted = scheduler.step(answer, timestep, latents).pred_original_sample
        found = clean_latents(latents, answer, shares_at(timestep), prediction)
        torch.testing.assert_close(found, wanted, rtol=2e-6, atol=2e-6)


def test_the_right_answer_gives_the_clean_latents_back() -> None:
    generator = torch.Generator().manual_seed(1)
    clean, noise = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    at, alphas = torch.tensor([300]), alphas_cumprod()
    noisy = add_noise(clean, noise, at, alphas)
    for prediction, answer in (("epsilon", noise), ("v_prediction", velocity(clean, noise, at, alphas))):
        torch.testing.assert_close(clean_latents(noisy, answer, shares_at(300), prediction), clean, rtol=0, atol=1e-5)


def test_gradients_reach_the_answer() -> None:
    answer = torch.zeros(1, 4, 2, 2, requires_grad=True)
    clean_latents(torch.ones(1, 4, 2, 2), answer, Shares(0.8, 0.6)).sum().backward()
    assert answer.grad is not None
    torch.testing.assert_close(answer.grad, torch.full((1, 4, 2, 2), -0.75))


def test_latents_are_drawn_around_the_mean_and_scaled() -> None:
    mean, log_variance = torch.tensor([3.0, -1.0]), torch.tensor([2 * math.log(2), -100.0])
    drawn = sampled_latents(mean, log_variance, torch.tensor([1.5, 1.0]), 0.5)
    assert drawn.tolist() == pytest.approx([3.0, -0.5], abs=1e-6)
    assert sampled_latents(mean, log_variance, None, 0.5).tolist() == [1.5, -0.5]


def test_a_draw_is_that_of_diffusers() -> None:
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    moments = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(2)) * 3
    mean, log_variance = moments.chunk(2, dim=1)
    noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(7))
    wanted = DiagonalGaussianDistribution(moments).sample(torch.Generator().manual_seed(7)) * 0.18215
    assert torch.equal(sampled_latents(mean, log_variance, noise, 0.18215), wanted)


@pytest.mark.parametrize(("fidelity", "expected"), [(0.0, 2.0), (0.25, 3.0), (1.0, 6.0)])
def test_fidelity_goes_from_the_restored_to_the_input(fidelity: float, expected: float) -> None:
    assert float(nearer_to_input(torch.tensor(2.0), torch.tensor(6.0), fidelity)) == expected
