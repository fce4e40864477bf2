"""The input of StyleGAN3: a fixed set of plane waves, shifted and turned by w and by the user."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lora_trainer.models.gan.fully_connected import FullyConnected


class FourierInput(nn.Module):
    """w (b, w_dim) -> (b, channels, size, size).

    `transform` (3, 3) is the user's: it maps places of the picture, in units of its side from the centre, to places of
    the waves.
    """

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, w_dim: int, channels: int, size: int, rate: float, bandwidth: float) -> None:
        super().__init__()
        self.size, self.rate, self.bandwidth = size, rate, bandwidth
        # a normal direction, and a radius that spreads the points evenly over the disc
        freqs = torch.randn(channels, 2)
        radii = freqs.square().sum(1, keepdim=True).sqrt()
        freqs = freqs / (radii * radii.square().exp() ** 0.25) * bandwidth
        self.affine = FullyConnected(w_dim, 4, weight_std=0)
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        with torch.no_grad():
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def forward(self, w: Tensor) -> Tensor:
        freqs, phases = self._moved(w)
        excess = freqs.norm(dim=2) - self.bandwidth
        amplitudes = (1 - excess / (self.rate / 2 - self.bandwidth)).clamp(0, 1)  # none above the Nyquist frequency
        places = (torch.arange(self.size, device=w.device, dtype=w.dtype) + 0.5 - self.size / 2) / self.rate
        # sin(a + b) = sin a cos b + cos a sin b: a sine for each row and column instead of each pixel
        across = 2 * math.pi * (freqs[:, :, :1] * places + phases[:, :, None])
        downwards = 2 * math.pi * freqs[:, :, 1:] * places
        columns = torch.stack([across.sin(), across.cos()], 2) * amplitudes[:, :, None, None]  # (b, c, 2, size)
        rows = torch.stack([downwards.cos(), downwards.sin()], 3)  # (b, c, size, 2)
        waves = (rows @ columns).flatten(2)
        mixed: Tensor = torch.matmul(self.weight / math.sqrt(self.weight.shape[1]), waves)
        return mixed.view(w.shape[0], -1, self.size, self.size)

    def _moved(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Frequencies (b, channels, 2) and phases (b, channels) after w's rotation and shift and the transform."""
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cosine, sine, shift_x, shift_y = t.unbind(1)
        zero, one = torch.zeros_like(sine), torch.ones_like(sine)
        rotation = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], 1).view(-1, 3, 3)
        shift = torch.stack([one, zero, -shift_x, zero, one, -shift_y, zero, zero, one], 1).view(-1, 3, 3)
        moves = rotation @ shift @ self.transform
        phases = self.phases + (self.freqs @ moves[:, :2, 2:]).squeeze(2)
        return self.freqs @ moves[:, :2, :2], phases
