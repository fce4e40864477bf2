"""The U-Net discriminator with spectral norm of Real-ESRGAN (Wang et al. 2021): one logit for each pixel."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm  # the old one, whose names the published files have

SLOPE = 0.2


class UNetDiscriminatorSN(nn.Module):
    """(b, 3, h, w) -> (b, 1, h, w). The weights have the published names, so `RealESRGAN_x4plus_netD.pth` loads."""

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64, skip_connection: bool = True) -> None:
        super().__init__()
        self.skip_connection = skip_connection
        features = num_feat
        self.conv0 = nn.Conv2d(num_in_ch, features, 3, 1, 1)
        self.conv1 = spectral_norm(nn.Conv2d(features, features * 2, 4, 2, 1, bias=False))
        self.conv2 = spectral_norm(nn.Conv2d(features * 2, features * 4, 4, 2, 1, bias=False))
        self.conv3 = spectral_norm(nn.Conv2d(features * 4, features * 8, 4, 2, 1, bias=False))
        self.conv4 = spectral_norm(nn.Conv2d(features * 8, features * 4, 3, 1, 1, bias=False))
        self.conv5 = spectral_norm(nn.Conv2d(features * 4, features * 2, 3, 1, 1, bias=False))
        self.conv6 = spectral_norm(nn.Conv2d(features * 2, features, 3, 1, 1, bias=False))
        self.conv7 = spectral_norm(nn.Conv2d(features, features, 3, 1, 1, bias=False))
        self.conv8 = spectral_norm(nn.Conv2d(features, features, 3, 1, 1, bias=False))
        self.conv9 = nn.Conv2d(features, 1, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x0 = F.leaky_relu(self.conv0(image), SLOPE)
        x1 = F.leaky_relu(self.conv1(x0), SLOPE)
        x2 = F.leaky_relu(self.conv2(x1), SLOPE)
        x3 = F.leaky_relu(self.conv3(x2), SLOPE)
        x = x3
        for convolution, skipped in ((self.conv4, x2), (self.conv5, x1), (self.conv6, x0)):
            # to the size of the other side, which for multiples of 8 is twice as large
            x = F.interpolate(x, size=skipped.shape[-2:], mode="bilinear", align_corners=False)
            x = F.leaky_relu(convolution(x), SLOPE)
            x = x + skipped if self.skip_connection else x
        x = F.leaky_relu(self.conv7(x), SLOPE)
        x = F.leaky_relu(self.conv8(x), SLOPE)
        logits: Tensor = self.conv9(x)
        return logits
