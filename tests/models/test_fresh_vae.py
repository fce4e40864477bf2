"""A VAE that has learnt nothing shows the colours of a picture, roughly; one with diffusers' own weights none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.models.architectures import build_vae
from lora_trainer.models.base_configs import published_configs
from lora_trainer.models.fresh_model import initialised
from lora_trainer.models.fresh_vae import let_colours_through

WIDTHS = {"small": (16, 32, 64, 128), "narrow": (8, 8, 16, 16)}


def _vae(widths: tuple[int, ...], groups: int):  # type: ignore[no-untyped-def]
    config = {
        **published_configs("sdxl")["vae"],
        "block_out_channels": list(widths),
        "layers_per_block": 1,
        "norm_num_groups": groups,
    }
    return initialised(lambda: build_vae(config), 0, "vae", torch.float32)


def _pictures() -> Tensor:
    """(16, 3, 64, 64) from -1 to 1: each of one colour, with a square of another in its middle."""
    colours = torch.rand(2, 16, 3, 1, 1, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pictures = colours[0].expand(16, 3, 64, 64).clone()
    pictures[:, :, 16:48, 16:48] = colours[1]
    return pictures


@torch.no_grad()
def _agreement(vae, pictures: Tensor) -> list[float]:  # type: ignore[no-untyped-def]
    """Of red, green and blue: the correlation of the colours of 8 x 8 pixels with what the VAE makes of them."""
    made = vae.decode(vae.encode(pictures).latent_dist.mean).sample
    before, after = (F.avg_pool2d(image, 8).transpose(0, 1).flatten(1) for image in (pictures, made))
    return [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(before, after, strict=True)]


@pytest.mark.parametrize(("widths", "groups"), [("small", 4), ("narrow", 2)])
def test_colours_come_through(widths: str, groups: int) -> None:
    vae, pictures = _vae(WIDTHS[widths], groups), _pictures()
    assert max(map(abs, _agreement(vae, pictures))) < 0.5
    let_colours_through(vae)
    assert min(_agreement(vae, pictures)) > 0.6


def test_latents_begin_as_colours() -> None:
    """The first three rise with red, green and blue, and the encoder's distributions are the same everywhere."""
    vae = _vae(WIDTHS["small"], 4)
    let_colours_through(vae)
    greys = torch.full((2, 3, 32, 32), -0.2)
    for channel in range(3):
        brighter = greys.clone()
        brighter[1, channel] = 0.6
        with torch.no_grad():
            found = vae.encode(brighter).latent_dist
        change = (found.mean[1] - found.mean[0]).mean((1, 2))
        assert change[channel] > 0.3
        assert change[channel] == change[:3].max()
        assert torch.equal(found.logvar, torch.zeros_like(found.logvar))


def test_it_is_a_function_of_the_seed() -> None:
    first, again = _vae(WIDTHS["narrow"], 2), _vae(WIDTHS["narrow"], 2)
    for vae in (first, again):
        let_colours_through(vae)
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.state_dict().items())
