"""What h264 and h265 do to a picture: it is encoded as a clip of a few frames, and the middle one is taken.

Through PyAV, on the CPU: a picture on a GPU is fetched, encoded and sent back.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_trainer.errors import Refusal

ENCODERS = {"h264": "libx264", "h265": "libx265"}
FRAMES, TAKEN = 5, 2  # a key frame, then frames that are predicted from it
SHIFT_PX = 1  # the camera moves, so that prediction has something to do
OPTIONS = {
    "libx264": {"threads": "1", "preset": "medium"},
    "libx265": {"preset": "fast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
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
    # repeated borders make room for the shift, and the sides even, as 4:2:0 colour wants them
    room = (margin, margin + (width + 2 * margin) % 2, margin, margin + (height + 2 * margin) % 2)
    wide = F.pad(image.detach().float().cpu(), room, mode="replicate")
    pixels = (wide[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    frames = [np.roll(pixels, (index - TAKEN) * SHIFT_PX, 1) for index in range(FRAMES)]
    decoded = _decoded(_encoded(frames, ENCODERS[codec], crf))[TAKEN]
    back = torch.from_numpy(decoded.copy()).permute(2, 0, 1)[None].to(image.device, image.dtype) / 255
    return back[..., margin : margin + height, margin : margin + width]


def _encoded(frames: list[np.ndarray[Any, Any]], encoder: str, crf: int) -> bytes:
    av = _pyav()
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        options = OPTIONS[encoder]
        stream = container.add_stream(encoder, rate=25, options={**options, "crf": str(crf)})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return buffer.getvalue()


def _decoded(data: bytes) -> list[np.ndarray[Any, Any]]:
    with _pyav().open(io.BytesIO(data)) as container:
        container.streams.video[0].thread_count = 1
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _pyav() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise Refusal("video_prob needs the package av: pip install lora_trainer[video]") from error
    av.logging.set_level(av.logging.ERROR)
    return av
