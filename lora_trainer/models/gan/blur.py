"""The Gaussian blur of what the discriminator sees at the start of a StyleGAN3-R training."""

from __future__ import annotations

import math

from torch import Tensor

from lora_trainer.models.gan.filtering import downsample

START_SIGMA = 10.0  # pixels


def blur_sigma(images_seen: int, batch: int) -> float:
    """In pixels; it falls to 0 in a straight line over 200 kimg at a batch of 32, in proportion with other batches."""
    return START_SIGMA * max(1 - images_seen / (batch * 200 / 32 * 1000), 0.0)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Kernel 2 ** -(i / sigma)^2 for whole i up to 3 sigma; outside the images everything is 0."""
    radius = math.floor(sigma * 3)
    if radius < 1:
        return images
    weights = [2.0 ** -((i / sigma) ** 2) for i in range(-radius, radius + 1)]
    taps = tuple(weight / sum(weights) for weight in weights)
    return downsample(images, ((taps, taps),), down=1)
