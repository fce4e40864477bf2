"""Which layers of a GAN compute in half precision: those of the highest resolutions, on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class HalfPrecision:
    """`resolutions` is num_fp16_res: how many of the highest resolutions are in `dtype`, 0 for none.

    On a device that is not in `devices` everything is in the precision of the weights.
    """

    resolutions: int = 4
    dtype: torch.dtype = torch.float16
    devices: tuple[str, ...] = ("cuda",)

    def covers(self, resolution: int, highest: int) -> bool:
        """Whether a block of a StyleGAN2 generator or of the discriminator, 8 px or more, is among them."""
        return resolution >= 8 and resolution << self.resolutions > highest

    def dtype_on(self, device: torch.device, force_fp32: bool = False) -> torch.dtype | None:
        """The half precision there, or None for that of the weights."""
        return self.dtype if device.type in self.devices and not force_fp32 else None
