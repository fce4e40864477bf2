"""What becomes of a picture in its bucket: how much is cut away, and whether it is enlarged for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lora_trainer.data.buckets import BucketSettings, Placement, Size, place

MUCH_LOST = 0.1  # a share of the area
ENLARGED = 1.02  # sides that grow by less stay as sharp


@dataclass(frozen=True)
class Fit:
    """`lost` is the share of the picture's area that no step sees, `scale` by how much its sides grow or shrink.

    `fill` is the bucket's area as a share of the resolution's. Without a `placement` the picture cannot be used.
    """

    placement: Placement | None
    problem: str = ""
    lost: float = 0.0
    scale: float = 1.0
    fill: float = 1.0

    @property
    def is_enlarged(self) -> bool:
        return self.scale > ENLARGED

    @property
    def kept(self) -> tuple[float, float, float, float]:
        """What is left: top, left, bottom and right as shares of the picture."""
        if self.placement is None:
            return 0.0, 0.0, 1.0, 1.0
        (height, width), (top, left) = self.placement.resized_px, self.placement.crop_top_left_px
        bottom, right = top + self.placement.bucket_px[0], left + self.placement.bucket_px[1]
        return top / height, left / width, bottom / height, right / width


def fit(size_px: Size, settings: BucketSettings) -> Fit:
    try:
        placement = place(*size_px, settings)
    except ValueError as error:
        return Fit(None, str(error))
    resized, bucket = math.prod(placement.resized_px), math.prod(placement.bucket_px)
    scale = math.sqrt(resized / math.prod(size_px))
    return Fit(placement, "", 1 - bucket / resized, scale, bucket / math.prod(settings.resolution_px))
