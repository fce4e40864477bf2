"""The VGG-style discriminator of SRGAN and ESRGAN (Ledig et al. 2017, Wang et al. 2018): one logit for a picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2
SIZES = (128, 256)


class VGGStyleDiscriminator(nn.Module):
    """(b, 3, input_size, input_size) -> (b, 1). The weights have BasicSR's names.

    Batch norm would let real pictures tell about made ones in the same batch, so a batch of both says so: `parts` is in
    how many parts the statistics are taken.
    """

    separates = True

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64, input_size: int = 128) -> None:
        super().__init__()
        widths = [num_feat * factor for factor in (1, 2, 4, 8, 8, 8)][: 5 if input_size == SIZES[0] else 6]
        self.depth = len(widths)
        before = num_in_ch
        for level, width in enumerate(widths):
            setattr(self, f"conv{level}_0", nn.Conv2d(before, width, 3, 1, 1, bias=level == 0))
            setattr(self, f"conv{level}_1", nn.Conv2d(width, width, 4, 2, 1, bias=False))
            if level:
                setattr(self, f"bn{level}_0", nn.BatchNorm2d(width))
            setattr(self, f"bn{level}_1", nn.BatchNorm2d(width))
            before = width
        self.linear1 = nn.Linear(before * 4 * 4, 100)
        self.linear2 = nn.Linear(100, 1)

    def forward(self, image: Tensor, parts: int = 1) -> Tensor:
        x = torch.cat([self._features(part) for part in image.chunk(parts)]) if self.training else self._features(image)
        logits: Tensor = self.linear2(F.leaky_relu(self.linear1(x), SLOPE))
        return logits

    def _features(self, x: Tensor) -> Tensor:
        for level in range(self.depth):
            x = getattr(self, f"conv{level}_0")(x)
            x = F.leaky_relu(getattr(self, f"bn{level}_0")(x) if level else x, SLOPE)
            x = F.leaky_relu(getattr(self, f"bn{level}_1")(getattr(self, f"conv{level}_1")(x)), SLOPE)
        return x.flatten(1)
