"""Special noise: what each function adds, and that nothing but its generator decides it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lora_trainer.draws import torch_generator
from lora_trainer.losses.noise import (
    adaptive_strength,
    multires_noise,
    offset_direction,
    offset_noise,
    perturbed,
    random_strength,
)


def white(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch_generator("white"))


def test_offset_shifts_each_channel_as_a_whole() -> None:
    noise = white(4, 8, 12)
    shift = offset_noise(noise, 0.1, torch_generator(1)) - noise
    direction = offset_direction(4, torch_generator(1))
    torch.testing.assert_close(shift, (0.1 * direction).expand(4, 8, 12))
    assert len(set(direction.flatten().tolist())) == 4
    assert torch.equal(offset_noise(noise, 0.0, torch_generator(1)), noise)


def test_offset_strength_per_channel() -> None:
    strength = torch.tensor([0.0, 1.0]).view(2, 1, 1)
    shifted = offset_noise(torch.zeros(2, 3, 3), strength, torch_generator(1))
    assert shifted[0].abs().max() == 0
    torch.testing.assert_close(shifted[1], offset_direction(2, torch_generator(1))[1].expand(3, 3))


def test_adaptive_strength_by_hand() -> None:
    latents = torch.stack([torch.full((2, 2), value) for value in (0.0, 2.0, -3.0)])
    assert adaptive_strength(0.1, 0.5, latents).flatten().tolist() == pytest.approx([0.1, 1.1, 1.6])
    assert adaptive_strength(0.1, -0.04, latents).flatten().tolist() == pytest.approx([0.1, 0.02, 0.0])
    assert adaptive_strength(0.1, 0.5, latents).shape == (3, 1, 1)


def test_random_strength_is_below_the_given_one() -> None:
    drawn = [random_strength(0.2, torch_generator(number)) for number in range(200)]
    assert 0 <= min(drawn) < 0.02
    assert 0.18 < max(drawn) <= 0.2
    assert abs(sum(drawn) / 200 - 0.1) < 0.015


def test_multires_noise_level_by_level() -> None:
    noise = white(4, 16, 24)
    generator = torch_generator(5)
    expected = noise.clone()
    sizes = []
    for level in range(6):
        stride = (2 + 2 * float(torch.rand((), generator=generator))) ** level
        size = (max(1, int(16 / stride)), max(1, int(24 / stride)))
        sizes.append(size)
        coarse = torch.randn(1, 4, *size, generator=generator)
        expected += F.interpolate(coarse, size=(16, 24), mode="bilinear", align_corners=False)[0] * 0.3**level
        if 1 in size:
            break
    assert sizes[0] == (16, 24)
    assert 1 in sizes[-1]
    actual = multires_noise(noise, 6, 0.3, torch_generator(5))
    torch.testing.assert_close(actual, expected / expected.std())
    torch.testing.assert_close(actual.std(), torch.tensor(1.0))
    assert torch.equal(noise, white(4, 16, 24))


def test_multires_noise_has_large_shapes() -> None:
    def coarse_share(noise: torch.Tensor) -> float:
        return float(F.avg_pool2d(noise[None], 16).var() * 256)

    noise = white(4, 64, 64)
    assert 0.5 < coarse_share(noise) < 2
    assert coarse_share(multires_noise(noise, 6, 0.8, torch_generator(3))) > 10


def test_perturbed_adds_white_noise_of_the_given_strength() -> None:
    noise = white(4, 32, 32)
    extra = (perturbed(noise, 0.1, torch_generator(9)) - noise) / 0.1
    torch.testing.assert_close(extra, torch.randn(4, 32, 32, generator=torch_generator(9)), rtol=1e-4, atol=1e-5)
    assert torch.equal(perturbed(noise, 0.0, torch_generator(9)), noise)


def test_only_the_given_generator_is_used() -> None:
    noise = white(4, 8, 8)
    for make in (
        lambda: offset_noise(noise, 0.1, torch_generator(1)),
        lambda: multires_noise(noise, 4, 0.5, torch_generator(1)),
        lambda: perturbed(noise, 0.1, torch_generator(1)),
    ):
        torch.manual_seed(0)
        state = torch.get_rng_state()
        first = make()
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(1)
        assert torch.equal(make(), first)
