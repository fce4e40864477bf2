"""How a new VAE begins: colours go straight through it, so that training need not find out first that there are any.

With diffusers' own random weights everything stays grey for thousands of steps: pictures are normalised at every layer,
and hues that point in all directions have no mean to follow. Here the channels of each layer are, in turn, a constant
and red, green and blue, what a layer adds to them begins at 0, and three of the latents begin as the colours of 8 x 8
pixels. The constant keeps the norms from hiding how strong a colour is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor

TURN = 4  # channels: a constant, red, green, blue, and again
CONSTANT = -3.0  # colours are -1..1; of this sign, activations pass them
NOISE = 0.3  # of the random weights, which tell equal channels apart
TO_LATENTS, TO_COLOURS = 4.0, 2.0  # about what norm and activation take
ACTIVATED = 0.4  # their mean after the activation


@torch.no_grad()
def let_colours_through(vae: Any) -> None:
    """Change the random weights of an AutoencoderKL; nothing new is drawn."""
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            _silence(module.conv2)
            if module.conv_shortcut is not None:
                _copy(module.conv_shortcut, torch.ones(1, 1))
        elif isinstance(module, Attention):
            _silence(module.to_out[0])
        elif isinstance(module, Downsample2D):
            _copy(module.conv, torch.tensor([[0.25, 0.25, 0.0], [0.25, 0.25, 0.0], [0.0, 0.0, 0.0]]))
        elif isinstance(module, Upsample2D):
            _copy(module.conv, _middle(module.conv))
    for part in (vae.encoder, vae.decoder):
        _begin(part.conv_in)
    _end(vae.encoder.conv_out, TO_LATENTS)
    _end(vae.decoder.conv_out, TO_COLOURS)
    _silence_rows(vae.encoder.conv_out, range(vae.config.latent_channels, 2 * vae.config.latent_channels))
    for conv in filter(None, (vae.quant_conv, vae.post_quant_conv)):
        _copy(conv, torch.ones(1, 1))


def _begin(conv: Any) -> None:
    """Every fourth channel is the constant, those after it are the first three of what comes in."""
    middle = conv.kernel_size[0] // 2
    conv.weight.mul_(NOISE)
    conv.bias.zero_()
    for row in range(len(conv.weight)):
        if row % TURN:
            conv.weight[row, row % TURN - 1, middle, middle] += 1
        else:
            _silence_rows(conv, [row])
            conv.bias[row] = CONSTANT


def _end(conv: Any, gain: float) -> None:
    """The first three of what goes out are the means of the red, green and blue channels."""
    middle = conv.kernel_size[0] // 2
    conv.weight.mul_(NOISE)
    conv.bias.zero_()
    for row in range(TURN - 1):
        own = conv.weight[row, row + 1 :: TURN, middle, middle]
        own += gain / len(own)
        conv.bias[row] = -gain * ACTIVATED


def _copy(conv: Any, kernel: Tensor) -> None:
    """A channel goes on as the one with its number; where there are more or fewer, numbers begin again."""
    out_channels, in_channels = conv.weight.shape[:2]
    fewer = min(out_channels, in_channels)
    same = torch.arange(out_channels)[:, None] % fewer == torch.arange(in_channels) % fewer
    shares = same / same.sum(1, keepdim=True)
    conv.weight.copy_(shares[:, :, None, None] * kernel)
    conv.bias.zero_()


def _middle(conv: Any) -> Tensor:
    kernel = torch.zeros(conv.kernel_size)
    kernel[conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1
    return kernel


def _silence(layer: Any) -> None:
    layer.weight.zero_()
    layer.bias.zero_()


def _silence_rows(conv: Any, rows: Iterable[int]) -> None:
    for row in rows:
        conv.weight[row] = 0
        conv.bias[row] = 0
