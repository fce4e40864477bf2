"""Pictures as pixels and as tensors.

Letters: b batch, h w pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lora_trainer.data.images import Pixels


def as_tensor(pixels: Pixels) -> Tensor:
    """(h, w, 3) of 0 to 255 -> (1, 3, h, w) from 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255


def as_pixels(image: Tensor) -> Pixels:
    """The first of (b, 3, h, w) from 0 to 1 as (h, w, 3) of 0 to 255."""
    pixels: Pixels = (image[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels
