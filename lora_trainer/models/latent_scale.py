"""Latents of a known scale: a VAE's own mean and spread per channel, taken out of them without changing a picture.

Letters: c latent channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SILENT = -30.0  # the least logarithm of a variance that diffusers lets through


@dataclass(frozen=True)
class LatentScale:
    """Of latents as the encoder gives them, (c,) float64 each."""

    mean: Tensor
    std: Tensor


def latent_scale(posteriors: Iterable[tuple[Tensor, Tensor]]) -> LatentScale:
    """Of draws from these distributions, given by mean and standard deviation, (b, c, h, w) each.

    The variance of the draws is that of their means and the mean of their variances.
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for mean, std in posteriors:
        flat = mean.double().cpu().transpose(0, 1).flatten(1)  # (c, n)
        spread = std.double().cpu().transpose(0, 1).flatten(1)
        count += flat.shape[1]
        total = total + flat.sum(1)
        squares = squares + (flat.square() + spread.square()).sum(1)
    if not count:
        raise ValueError("no latents to measure")
    average = total / count
    return LatentScale(average, (squares / count - average.square()).clamp(min=1e-12).sqrt())


@torch.no_grad()
def narrow_posterior(vae: Any, log_variance: float) -> None:
    """Let the encoder's distributions begin narrow: at about this, instead of at 0, which drowns latents in noise."""
    channels = len(vae.quant_conv.bias) // 2
    vae.quant_conv.bias[channels:] += log_variance


@torch.no_grad()
def silence_posterior(vae: Any) -> None:
    """Make the encoder give latents without noise, whatever it has learnt of it."""
    channels = len(vae.quant_conv.bias) // 2
    vae.quant_conv.weight[channels:] = 0
    vae.quant_conv.bias[channels:] = SILENT


@torch.no_grad()
def normalise_latents(vae: Any, scale: LatentScale) -> None:
    """Change the VAE so that its latents, times its `scaling_factor`, have mean 0 and standard deviation 1.

    The last layer of the encoder and the first of the decoder, both 1x1 convolutions, take it up, so that what is
    decoded from what was encoded stays the same.
    """
    factor = scale.std * float(vae.config.scaling_factor)  # old latent = new latent * factor + mean
    channels = len(factor)
    out = vae.quant_conv  # (2c, 2c, 1, 1): c means, then c logarithms of variances
    weight, bias = out.weight.double().cpu(), out.bias.double().cpu()
    weight[:channels] /= factor[:, None, None, None]
    bias[:channels] = (bias[:channels] - scale.mean) / factor
    bias[channels:] -= 2 * factor.log()
    inward = vae.post_quant_conv  # (c, c, 1, 1)
    kernel, shift = inward.weight.double().cpu(), inward.bias.double().cpu()
    shift = shift + kernel[:, :, 0, 0] @ scale.mean
    kernel = kernel * factor[None, :, None, None]
    for parameter, value in ((out.weight, weight), (out.bias, bias), (inward.weight, kernel), (inward.bias, shift)):
        parameter.copy_(value)
