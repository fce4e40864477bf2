"""A U-Net discriminator that goes down by strided convolutions and up by pixel shuffling, its two sides joined.

It stands in the place of traiNNer-redux's default of this name; the design is our own: spectral norm throughout, skips
that are concatenated instead of added (Schoenfeld et al. 2020), and pixel shuffling (Shi et al. 2016) instead of
enlarging before a convolution.
"""

from __future__ import annotations

from torch import Tensor, cat, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

SLOPE = 0.2
DEPTH = 3


class DUnet(nn.Module):
    """(b, 3, h, w) -> (b, 1, h, w), one logit for each pixel."""

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64) -> None:
        super().__init__()
        widths = [num_feat * 2**level for level in range(DEPTH + 1)]
        self.first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.down = nn.ModuleList(
            spectral_norm(nn.Conv2d(widths[level], widths[level + 1], 4, 2, 1, bias=False)) for level in range(DEPTH)
        )
        self.up = nn.ModuleList(
            spectral_norm(nn.Conv2d(widths[level + 1], widths[level] * 4, 3, 1, 1, bias=False))
            for level in reversed(range(DEPTH))
        )
        self.join = nn.ModuleList(
            spectral_norm(nn.Conv2d(widths[level] * 2, widths[level], 3, 1, 1, bias=False))
            for level in reversed(range(DEPTH))
        )
        self.last = nn.Conv2d(num_feat, 1, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(image), SLOPE)
        skipped = []
        for convolution in self.down:
            skipped.append(x)
            x = F.leaky_relu(convolution(x), SLOPE)
        for enlarge, join, other in zip(self.up, self.join, reversed(skipped), strict=True):
            x = F.pixel_shuffle(F.leaky_relu(enlarge(x), SLOPE), 2)
            bottom, right = (other.shape[axis] - x.shape[axis] for axis in (-2, -1))
            if bottom or right:  # an odd side lost a pixel on the way down
                x = F.pad(x, (0, right, 0, bottom), mode="replicate")
            x = F.leaky_relu(join(cat([x, other], 1)), SLOPE)
        logits: Tensor = self.last(x)
        return logits
