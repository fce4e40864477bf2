"""What a picture is recognised by, whatever its size and compression: 64 bits of differences and a few colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE_PX = 16  # of the colours
MIDDLE_PX = 64  # to which the picture is averaged first
TURNS = {  # what brings a picture with this EXIF orientation upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Fingerprint:
    """`bits` say for 8 x 8 places whether it is lighter to the right; `mirrored_bits` say it of the mirror image.

    `colours` are (SIDE_PX, SIDE_PX, 3) as bytes.
    """

    bits: int
    mirrored_bits: int
    colours: bytes

    @property
    def pixels(self) -> NDArray[np.uint8]:
        return np.frombuffer(self.colours, np.uint8).reshape(SIDE_PX, SIDE_PX, 3)


def fingerprint(image: Image.Image, orientation: int = 1) -> Fingerprint:
    """Of a picture in the modes RGB, RGBA, L or CMYK; transparency is laid on white."""
    small = image.resize((MIDDLE_PX, MIDDLE_PX), Image.Resampling.BOX)
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small)
    small = small.convert("RGB")
    if orientation in TURNS:
        small = small.transpose(TURNS[orientation])
    grey = np.asarray(small.convert("L").resize((9, 8), Image.Resampling.BOX)).astype(np.int16)
    colours = np.asarray(small.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX))
    return Fingerprint(_bits(grey), _bits(grey[:, ::-1]), colours.tobytes())


def _bits(grey: NDArray[np.int16]) -> int:
    """(8, 9) to a number of 64 bits."""
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")
