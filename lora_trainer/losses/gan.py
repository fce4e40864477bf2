"""What trains a StyleGAN besides its networks: the logistic loss, R1 and path length.

b images of c channels; l layers of w with d numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lora_trainer.losses.adversarial import discriminator_loss as _discriminator_loss
from lora_trainer.losses.adversarial import generator_loss as _generator_loss

LOGISTIC = "wgan_softplus"  # its name among the losses of super-resolution
PATH_LENGTH_DECAY = 0.01


def generator_logistic(fake_logits: Tensor) -> Tensor:
    """(b,) softplus(-D(G(z))), non-saturating."""
    return _generator_loss(LOGISTIC, fake_logits)


def discriminator_logistic(logits: Tensor, is_real: bool) -> Tensor:
    """(b,) softplus(-D(x)) of real images, softplus(D(G(z))) of fakes."""
    return _discriminator_loss(LOGISTIC, logits, is_real)


def r1_penalty(real_logits: Tensor, images: Tensor, gamma: float) -> Tensor:
    """(b,) gamma / 2 times the squared gradient of each image's logit by its pixels (Mescheder et al. 2018).

    `images` (b, c, h, w), in float32, are what went in before augmentation and blur, and require a gradient. Only
    the path to the images is derived, so that no gradient of a weight is computed that nobody needs.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1) * (gamma / 2)


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
    """(b,) how far images (b, c, h, w) move with ws (b, l, d), along normal `noise` of the images' shape.

    The root of the mean over layers of the squared gradient (Karras et al. 2020, equation 4).
    """
    moved = (images * noise).sum() / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad(moved, ws, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def path_length_penalty(lengths: Tensor, mean: Tensor, decay: float = PATH_LENGTH_DECAY) -> tuple[Tensor, Tensor]:
    """Lengths (b,) and their running mean -> penalties (b,), to be weighted, and the new mean, detached.

    The penalty is the squared distance from the new mean, through which the gradient flows as well.
    """
    new_mean = torch.lerp(mean, lengths.mean(), decay)
    return (lengths - new_mean).square(), new_mean.detach()
