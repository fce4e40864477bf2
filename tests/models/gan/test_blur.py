"""The blur at the start of a StyleGAN3-R training."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.models.gan.blur import blur, blur_sigma


def test_it_fades_with_the_images_seen() -> None:
    assert [blur_sigma(seen, 32) for seen in (0, 100_000, 200_000, 300_000)] == [10.0, 5.0, 0.0, 0.0]
    assert blur_sigma(100_000, 16) == pytest.approx(0)


def test_it_is_a_gaussian_to_the_base_2() -> None:
    image = torch.zeros(1, 1, 15, 15, dtype=torch.float64)
    image[0, 0, 7, 7] = 1
    found = blur(image, 1.5)[0, 0]
    line = torch.tensor([2.0 ** -((i / 1.5) ** 2) for i in range(-4, 5)], dtype=torch.float64)
    line /= line.sum()
    torch.testing.assert_close(found[3:12, 3:12], torch.outer(line, line))
    assert found[0].abs().max() == 0
    assert blur(image, 0.2) is image
