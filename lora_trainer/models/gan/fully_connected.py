"""A linear layer with an equalised learning rate: the weights are stored at unit variance and scaled in use."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.models.gan.leaky_relu import GAIN, leaky_relu


class FullyConnected(nn.Module):
    """(..., in) -> (..., out). `lr_multiplier` scales weight and bias in use, and what is stored the other way.

    `stored_bias` is the value as stored: official StyleGAN2 and CREPS do not divide it by the multiplier.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bends: bool = False,
        lr_multiplier: float = 1.0,
        weight_std: float = 1.0,
        stored_bias: float = 0.0,
    ) -> None:
        super().__init__()
        self.bends = bends
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier
        self.weight = nn.Parameter(torch.randn(out_features, in_features) * (weight_std / lr_multiplier))
        self.bias = nn.Parameter(torch.full([out_features], float(stored_bias)))

    def forward(self, x: Tensor) -> Tensor:
        gain = GAIN if self.bends else 1.0  # within the weights: a leaky ReLU passes a positive factor through
        # the input is scaled and not the weight, which is far larger
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        y = F.linear(x * (self.weight_gain * gain), weight, bias * (self.bias_gain * gain))
        return leaky_relu(y, 1.0) if self.bends else y
