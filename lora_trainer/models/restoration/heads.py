"""What is trained of the discriminator of restoration: a small head on each output of its frozen backbone.

Letters: b batch, c channels, h w places of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm  # begins with power iterations, the older one without
from torch.nn.utils.parametrize import is_parametrized

HIDDEN, SLOPE = 512, 0.2
TAPS = (1.0, 3.0, 3.0, 1.0)
LEAST_PX = 64  # of the pictures: the smallest map is 16 times smaller, and a head needs 4 x 4 places


class Blur(nn.Module):
    """(b, c, h, w) -> (b, c, h + 2 * border - 3, w + 2 * border - 3), before a stride (Zhang 2019)."""

    kernel: Tensor

    def __init__(self, border: int) -> None:
        super().__init__()
        taps = torch.tensor(TAPS) / sum(TAPS)
        self.border = border
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.kernel.expand(channels, -1, -1, -1), padding=self.border, groups=channels)


class FeatureHeads(nn.Module):
    """The outputs of the backbone -> as many logits: (b, 1, h', w') of maps, (b, 1) of the embedding, float32.

    Above 0 is real. Calls make no power iteration of spectral norm: `refine` does, once for each step, so that it does
    not matter in how many passes a batch is seen.
    """

    def __init__(self, channels: Sequence[int], hidden: int = HIDDEN) -> None:
        super().__init__()
        *maps, vector = channels
        self.heads = nn.ModuleList([*(_map_head(count, hidden) for count in maps), _vector_head(vector, hidden)])
        self.eval()

    @torch.no_grad()
    def refine(self) -> None:
        """Bring the estimates of the spectral norms up to the weights by one power iteration."""
        self.train()
        for layer in self.modules():
            if is_parametrized(layer, "weight"):
                _ = layer.weight  # is computed when it is asked for, which iterates in train mode
        self.eval()

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        with torch.autocast(features[0].device.type, enabled=False):
            return [head(seen.float()) for head, seen in zip(self.heads, features, strict=True)]


def _map_head(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        Blur(border=2),
        spectral_norm(nn.Conv2d(channels, hidden, 3, stride=2)),
        nn.LeakyReLU(SLOPE),
        Blur(border=1),
        spectral_norm(nn.Conv2d(hidden, 1, 1, stride=2)),
    )


def _vector_head(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        spectral_norm(nn.Linear(channels, hidden)), nn.LeakyReLU(SLOPE), spectral_norm(nn.Linear(hidden, 1))
    )


def build_heads(channels: Sequence[int], seed: int, hidden: int = HIDDEN) -> FeatureHeads:
    """With fresh weights that follow from the seed. `channels` are the backbone's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
        return FeatureHeads(channels, hidden)
