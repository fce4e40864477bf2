"""PatchGAN (Isola et al. 2017) with spectral norm in place of batch norm, and several of them at several scales."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

SLOPE = 0.2
WIDEST = 8  # times num_feat


class PatchGANDiscriminatorSN(nn.Module):
    """(b, 3, h, w) -> (b, 1, h', w'): one logit for each patch, of 70 x 70 pixels with three layers."""

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64, n_layers: int = 3) -> None:
        super().__init__()
        widths = [num_feat * min(2**level, WIDEST) for level in range(n_layers + 1)]
        modules: list[nn.Module] = [spectral_norm(nn.Conv2d(num_in_ch, num_feat, 4, 2, 1)), nn.LeakyReLU(SLOPE)]
        for level in range(1, n_layers + 1):
            stride = 2 if level < n_layers else 1
            modules += [
                spectral_norm(nn.Conv2d(widths[level - 1], widths[level], 4, stride, 1, bias=False)),
                nn.LeakyReLU(SLOPE),
            ]
        modules.append(spectral_norm(nn.Conv2d(widths[n_layers], 1, 4, 1, 1)))
        self.layers = nn.Sequential(*modules)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.layers(image)
        return logits


class MultiscalePatchGANDiscriminatorSN(nn.Module):
    """(b, 3, h, w) -> the logits of one PatchGAN for the picture and each of its halvings (Wang et al. 2018)."""

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64, n_layers: int = 3, num_d: int = 2) -> None:
        super().__init__()
        self.scales = nn.ModuleList(PatchGANDiscriminatorSN(num_in_ch, num_feat, n_layers) for _ in range(num_d))

    def forward(self, image: Tensor) -> list[Tensor]:
        found = []
        for index, scale in enumerate(self.scales):
            image = F.avg_pool2d(image, 3, 2, 1, count_include_pad=False) if index else image
            found.append(scale(image))
        return found
