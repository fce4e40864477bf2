"""R3GAN's networks: their sizes, how they begin, and that every weight takes part."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lora_trainer.models.gan.r3gan import Block, Discriminator, Generator, Resampling, groups_of
from lora_trainer.models.gan.table import GanSize, build_r3gan


def small(c_dim: int = 0, seed: int = 3) -> tuple[Generator, Discriminator]:
    return build_r3gan(GanSize(32, c_dim=c_dim, cbase=512, cmax=32), seed=seed)


def shaken(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for weight in network.parameters():
            weight += torch.randn_like(weight) * 0.1
    return network


def test_a_block_begins_as_the_identity_and_groups_its_wide_channels() -> None:
    block = Block(32, 8)
    x = torch.randn(2, 32, 4, 4)
    assert torch.equal(block(x), x)
    assert block.convolve.weight.shape == (64, 16, 3, 3)
    assert float(block.widen.weight.std()) == pytest.approx(1.387 * 8**-0.25 / 32**0.5, rel=0.1)
    assert [groups_of(wide) for wide in (16, 64, 40, 1024, 2)] == [1, 4, 2, 64, 1]


def test_resampling_keeps_brightness_and_mixes_where_there_are_fewer_pixels() -> None:
    flat = torch.full((1, 8, 8, 8), 0.7)
    assert torch.allclose(Resampling(8, 8, enlarges=True)(flat)[..., 4:12, 4:12], torch.tensor(0.7))
    assert torch.allclose(Resampling(8, 8, enlarges=False)(flat)[..., 1:3, 1:3], torch.tensor(0.7))
    assert Resampling(8, 4, enlarges=True)(flat).shape == (1, 4, 16, 16)
    assert Resampling(8, 16, enlarges=False)(flat).shape == (1, 16, 4, 4)


@pytest.mark.parametrize("c_dim", [0, 3])
def test_every_weight_takes_part_and_labels_count(c_dim: int) -> None:
    generator, discriminator = small(c_dim)
    shaken(generator), shaken(discriminator)
    labels = torch.eye(3)[:2, :c_dim]
    images = generator(torch.randn(2, 64), labels)
    assert images.shape == (2, 3, 32, 32)
    logits = discriminator(images, labels)
    assert logits.shape == (2, 1)
    logits.sum().backward()
    for network in (generator, discriminator):
        assert [name for name, weight in network.named_parameters() if weight.grad is None] == []
    if c_dim:
        other = discriminator(images, labels.flip(0))
        assert not torch.allclose(other, logits)


def test_fresh_networks_keep_the_size_of_numbers_and_follow_from_the_seed() -> None:
    generator, discriminator = build_r3gan(GanSize(64, cbase=4096, cmax=64), seed=1)
    images = generator(torch.randn(16, 64))
    assert 0.3 < float(images.std()) < 3
    smooth = nn.functional.interpolate(torch.randn(16, 3, 4, 4), scale_factor=16.0)
    assert 0.1 < float(discriminator(smooth).std()) < 3
    again, _ = build_r3gan(GanSize(64, cbase=4096, cmax=64), seed=1)
    assert all(torch.equal(one, two) for one, two in zip(generator.parameters(), again.parameters(), strict=True))


def test_what_the_networks_lack_is_told() -> None:
    generator, discriminator = small(3)
    with pytest.raises(ValueError, match="no truncation"):
        generator(torch.randn(1, 64), torch.eye(3)[:1], truncation_psi=0.7)
    with pytest.raises(ValueError, match=r"give labels \(b, 3\)"):
        generator(torch.randn(1, 64))
    with pytest.raises(ValueError, match=r"give labels \(b, 3\)"):
        discriminator(torch.randn(1, 3, 32, 32))
