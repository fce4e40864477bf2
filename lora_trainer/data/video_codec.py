"""What h264 and h265 do to a picture: it is encoded as a clip of a few frames, and the middle one is taken.

Through PyAV, on the CPU: a picture on a GPU is fetched, encoded and sent back.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_trainer.data.images import Pixels
from lora_trainer.errors import Refusal

ENCODERS = {"h264": "libx264", "h265": "libx265"}
FRAMES, TAKEN = 5, 2  # a key frame, then frames that are predicted from it
SHIFT_PX = 1  # the camera moves, so that prediction has something to do
BLOCKS_PX = 64  # a multiple of every block that the codecs have
RATE = Fraction(25)
DECODERS = {"h264": "h264", "h265": "hevc"}
OPTIONS = {
    # without these the trees of blocks over a clip (mbtree, cutree) read, and x265 writes, beyond small frames:
    # results that change, and processes that die
    "h264": {"threads": "1", "preset": "medium", "x264-params": "mbtree=0"},
    "h265": {"preset": "fast", "x265-params": "log-level=none:pools=none:frame-threads=1:cutree=0:ctu=32"},
}


def check_encoders(codecs: tuple[str, ...]) -> None:
    """Raises Refusal where PyAV or an encoder is missing."""
    av = _pyav()
    for codec in codecs:
        if ENCODERS[codec] not in av.codecs_available:
            raise Refusal(f"video_codecs: this PyAV has no encoder {ENCODERS[codec]}; leave {codec} out")


def compress_as_video(image: Tensor, codec: str, crf: int) -> Tensor:
    """(1, 3, h, w) from 0 to 1, coded as h264 or h265 at a constant rate factor (0 to 51, higher is worse)."""
    height, width = image.shape[-2:]
    margin = SHIFT_PX * FRAMES
    # repeated borders make room for the shift and fill the last blocks: what lies beyond a frame is not always the same
    right, bottom = (margin + -(side + 2 * margin) % BLOCKS_PX for side in (width, height))
    room = (margin, right, margin, bottom)
    wide = F.pad(image.detach().float().cpu(), room, mode="replicate")
    pixels = (wide[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    frames = [np.ascontiguousarray(np.roll(pixels, (index - TAKEN) * SHIFT_PX, 1)) for index in range(FRAMES)]
    decoded = _coded(frames, codec, crf)[TAKEN]
    back = torch.from_numpy(decoded.copy()).permute(2, 0, 1)[None].to(image.device, image.dtype) / 255
    return back[..., margin : margin + height, margin : margin + width]


def _coded(frames: list[Pixels], codec: str, crf: int) -> list[Pixels]:
    """The frames after encoding and decoding, without a container: those carry random numbers."""
    av = _pyav()
    encoder = av.CodecContext.create(ENCODERS[codec], "w")
    encoder.height, encoder.width = frames[0].shape[:2]
    encoder.pix_fmt, encoder.framerate, encoder.time_base = "yuv420p", RATE, 1 / RATE
    encoder.options = {**OPTIONS[codec], "crf": str(crf)}
    encoder.thread_count = 1
    decoder = av.CodecContext.create(DECODERS[codec], "r")
    decoder.thread_count = 1
    # converted here, because the encoder's own conversion does not always give the same picture
    pictures = [av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p") for frame in frames]
    found = []
    for index, picture in enumerate(pictures):
        picture.pts = index
        found += [each for packet in encoder.encode(picture) for each in decoder.decode(packet)]
    found += [each for packet in encoder.encode(None) for each in decoder.decode(packet)]
    found += decoder.decode(None)
    return [each.to_ndarray(format="rgb24") for each in found]


def _pyav() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise Refusal("video_prob needs the package av: pip install lora_trainer[video]") from error
    av.logging.set_level(av.logging.ERROR)
    return av
