"""The base model that has learnt nothing loses nothing and changes nothing, until a LoRA does."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.losses.one_step import clean_latents, shares_at
from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.restoration.stand_in import stand_in_base


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return stand_in_base()


def test_its_vae_loses_nothing(base: BaseModel) -> None:
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    posterior = base.vae.encode(images).latent_dist
    assert posterior.mean.shape == (2, 192, 4, 6)
    for latents in (posterior.mean, posterior.sample(torch.Generator().manual_seed(2))):
        torch.testing.assert_close(base.vae.decode(latents).sample, images, atol=1e-5, rtol=0)
    assert torch.equal(base.vae.decode(posterior.mean, return_dict=False)[0], images)


def test_its_unet_gives_back_what_it_reads(base: BaseModel) -> None:
    latents = torch.randn(1, 192, 8, 8, generator=torch.Generator().manual_seed(1))
    answer = base.unet(latents, torch.tensor([200]), encoder_hidden_states=torch.zeros(1, 77, 40)).sample
    torch.testing.assert_close(clean_latents(latents, answer, shares_at(200)), latents, atol=1e-4, rtol=0)


def test_it_is_always_the_same_and_frozen(base: BaseModel) -> None:
    again = stand_in_base(torch.bfloat16)
    assert {weight.dtype for weight in again.unet.parameters()} == {torch.bfloat16}
    for weight, other in zip(base.unet.parameters(), again.unet.parameters(), strict=True):
        assert torch.equal(weight.bfloat16(), other)
        assert not weight.requires_grad
