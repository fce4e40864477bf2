"""Which parts of a picture count in the loss: its transparency, or a picture of its own.

Letters: h w latent pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lora_trainer.data.buckets import VAE_STEP_PX, Placement
from lora_trainer.data.images import BadPicture, decode, opacity
from lora_trainer.errors import Refusal


def read_mask(path: Path, placement: Placement, *, alpha: bool) -> Tensor:
    """(1, h, w) float32 from 0 (does not count) to 1, resized and cropped like the picture.

    From the transparency of the picture itself, all 1 where it has none, or from the red channel of a mask, which may
    have any size. Each value is the mean over its latent pixel, as in sd-scripts. Raises Refusal.
    """
    try:
        data = path.read_bytes()
        values = opacity(data) if alpha else decode(data, on_white=False)[..., 0]
    except (OSError, BadPicture) as error:
        raise Refusal(f"{path}: the mask cannot be read ({error})") from error
    rows, columns = placement.bucket_px
    if values is None:
        return torch.ones(1, rows // VAE_STEP_PX, columns // VAE_STEP_PX)
    if values.shape != placement.resized_px:
        height, width = placement.resized_px
        values = np.array(Image.fromarray(values).resize((width, height), Image.Resampling.BOX))
    top, left = placement.crop_top_left_px
    cut = values[top : top + rows, left : left + columns].astype(np.float32) / 255
    return F.avg_pool2d(torch.from_numpy(cut)[None, None], VAE_STEP_PX)[0]
