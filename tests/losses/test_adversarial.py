"""The GAN's losses against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.losses.adversarial import GAN_TYPES, discriminator_loss, generator_loss

LOGITS = torch.randn(3, 1, 4, 5, dtype=torch.float64, generator=torch_generator("logits")) * 2
Z = LOGITS.numpy()
REAL = {
    "vanilla": np.log1p(np.exp(-Z)),
    "lsgan": (Z - 1) ** 2,
    "wgan": -Z,
    "wgan_softplus": np.log1p(np.exp(-Z)),
    "hinge": np.maximum(0, 1 - Z),
}
FAKE = {
    "vanilla": np.log1p(np.exp(Z)),
    "lsgan": Z**2,
    "wgan": Z,
    "wgan_softplus": np.log1p(np.exp(Z)),
    "hinge": np.maximum(0, 1 + Z),
}


@pytest.mark.parametrize("kind", GAN_TYPES)
def test_both_sides(kind: str) -> None:
    np.testing.assert_allclose(discriminator_loss(kind, LOGITS, True), REAL[kind].mean((1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(discriminator_loss(kind, LOGITS, False), FAKE[kind].mean((1, 2, 3)), rtol=1e-12)
    expected = -Z if kind == "hinge" else REAL[kind]
    np.testing.assert_allclose(generator_loss(kind, LOGITS), expected.mean((1, 2, 3)), rtol=1e-12)


def test_soft_labels() -> None:
    logits = torch.tensor([[2.0]])
    expected = 0.9 * np.log1p(np.exp(-2.0)) + 0.1 * np.log1p(np.exp(2.0))
    assert discriminator_loss("vanilla", logits, True, real_label=0.9).item() == pytest.approx(expected)
    assert generator_loss("vanilla", logits, 0.9).item() == pytest.approx(expected)
    assert discriminator_loss("lsgan", logits, False, fake_label=0.5).item() == pytest.approx(2.25)


def test_scales_count_alike_and_the_last_layer_of_each() -> None:
    small = LOGITS[..., :2, :2]
    wanted = (discriminator_loss("vanilla", LOGITS, True) + discriminator_loss("vanilla", small, True)) / 2
    torch.testing.assert_close(discriminator_loss("vanilla", [LOGITS, small], True), wanted)
    layers = [[torch.full((3, 8, 9, 9), 7.0), LOGITS], [torch.full((3, 8, 4, 4), 7.0), small]]
    torch.testing.assert_close(discriminator_loss("vanilla", layers, True), wanted)
    torch.testing.assert_close(generator_loss("hinge", layers), -(LOGITS.mean((1, 2, 3)) + small.mean((1, 2, 3))) / 2)


def test_large_half_precision_logits_do_not_overflow() -> None:
    logits = torch.full((2, 1), 60000.0, dtype=torch.float16)
    assert discriminator_loss("lsgan", logits, False).tolist() == pytest.approx([3.6e9, 3.6e9], rel=1e-3)
    assert discriminator_loss("vanilla", logits, True).tolist() == [0.0, 0.0]


def test_an_unknown_kind_is_refused() -> None:
    message = r"^there is no gan_type 'ragan'; write one of vanilla, lsgan, wgan, wgan_softplus, hinge$"
    with pytest.raises(Refusal, match=message):
        generator_loss("ragan", LOGITS)
