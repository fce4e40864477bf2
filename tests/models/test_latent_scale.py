"""A VAE whose latents are normalised decodes the same pictures, and the published factor fits it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from lora_trainer.draws import torch_generator
from lora_trainer.models.latent_scale import latent_scale, narrow_posterior, normalise_latents, silence_posterior

SIZES = {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4, "layers_per_block": 1, "scaling_factor": 0.13025}
BLOCKS = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}


def build() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        vae: Any = AutoencoderKL(**SIZES, **BLOCKS)
    with torch.no_grad():
        vae.quant_conv.weight[:4] *= torch.tensor([3.0, 10.0, 40.0, 0.1])[:, None, None, None]
        vae.quant_conv.bias[:4] += torch.tensor([5.0, -2.0, 0.3, 0.0])
        vae.quant_conv.bias[4:] -= torch.tensor([1.0, 2.0, 3.0, 9.0])
    return vae.eval().requires_grad_(False)


def pictures() -> torch.Tensor:
    return torch.rand(6, 3, 48, 64, generator=torch_generator("pictures")) * 2 - 1


@pytest.fixture(scope="module")
def both() -> tuple[Any, Any]:
    vae = build()
    other = copy.deepcopy(vae)
    found = [vae.encode(pictures()[start : start + 2]).latent_dist for start in (0, 2, 4)]
    normalise_latents(other, latent_scale((each.mean, each.std) for each in found))
    return vae, other


def test_the_pictures_stay_the_same(both: tuple[Any, Any]) -> None:
    vae, other = both
    before, after = (each.decode(each.encode(pictures()).latent_dist.mean).sample for each in both)
    assert (before - after).abs().max() < 1e-5
    noise = torch.randn(6, 4, 6, 8, generator=torch_generator("noise"))
    drawn = []
    for each in (vae, other):
        posterior = each.encode(pictures()).latent_dist
        drawn.append(each.decode(posterior.mean + posterior.std * noise).sample)
    assert (drawn[0] - drawn[1]).abs().max() < 1e-5


def test_the_published_factor_fits(both: tuple[Any, Any]) -> None:
    vae, other = both
    assert (vae.encode(pictures()).latent_dist.mean * 0.13025).std(dim=(0, 2, 3)).min() < 0.01
    posterior = other.encode(pictures()).latent_dist
    noise = torch.randn(64, *posterior.mean.shape, generator=torch_generator("many"))
    latents = (posterior.mean + posterior.std * noise) * other.config.scaling_factor
    torch.testing.assert_close(latents.mean(dim=(0, 1, 3, 4)), torch.zeros(4), rtol=0, atol=0.02)
    torch.testing.assert_close(latents.std(dim=(0, 1, 3, 4)), torch.ones(4), rtol=0, atol=0.02)


def test_the_scale_of_draws_is_that_of_many_draws() -> None:
    mean = torch.randn(2, 4, 5, 5, generator=torch_generator("mean")) * 3 + 1
    std = torch.rand(2, 4, 5, 5, generator=torch_generator("std")) * 2
    noise = torch.randn(20000, *mean.shape, generator=torch_generator("draws"))
    drawn = mean + std * noise
    found = latent_scale([(mean[:1], std[:1]), (mean[1:], std[1:])])
    torch.testing.assert_close(found.mean.float(), drawn.mean(dim=(0, 1, 3, 4)), rtol=0, atol=0.01)
    torch.testing.assert_close(found.std.float(), drawn.std(dim=(0, 1, 3, 4)), rtol=0, atol=0.01)


def test_normalising_again_changes_nothing(both: tuple[Any, Any]) -> None:
    again = copy.deepcopy(both[1])
    posterior = again.encode(pictures()).latent_dist
    normalise_latents(again, latent_scale([(posterior.mean, posterior.std)]))
    torch.testing.assert_close(again.quant_conv.weight, both[1].quant_conv.weight, rtol=1e-3, atol=1e-6)


def test_nothing_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="no latents"):
        latent_scale([])


def test_a_posterior_is_narrowed_and_silenced_without_moving_its_mean() -> None:
    first, narrow, silent = build(), build(), build()
    narrow_posterior(narrow, -6.0)
    silence_posterior(silent)
    before, less, none = (each.encode(pictures()).latent_dist for each in (first, narrow, silent))
    assert torch.equal(before.mean, less.mean)
    assert torch.equal(before.mean, none.mean)
    torch.testing.assert_close(less.logvar, before.logvar - 6)
    assert none.std.max() < 1e-6
