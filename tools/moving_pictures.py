"""Frames as a file that moves: GIF, WebP, animated PNG, MP4 through PyAV, or a folder of PNG files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lora_trainer.atomic import staged_file, staged_folder, write_bytes
from lora_trainer.errors import Refusal

if TYPE_CHECKING:
    from PIL import Image

Frames = Iterator["Image.Image"]
MS = 1000
GIF_STEP_MS = 10  # in which a GIF counts time
H264, MPEG4 = "libx264", "mpeg4"


def write_moving(path: Path, frames: Frames, fps: float) -> None:
    """By the ending of the path; without one it is a new folder. Raises Refusal."""
    check_moving(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.suffix:
        _write_folder(path, frames)
        return
    with staged_file(path) as file:
        WRITERS[path.suffix.lower()](file, frames, fps)


def check_moving(path: Path) -> None:
    """Raises Refusal for an ending that is not known, a folder that is there, and where there is no encoder."""
    ending = path.suffix.lower()
    if not ending and path.exists():
        raise Refusal(f"{path} is there already; give another folder for the frames, or remove it")
    if ending and ending not in WRITERS:
        raise Refusal(f"{path}: write a path that ends with {', '.join(WRITERS)}, or a folder for the frames")
    if ending == ".mp4":
        _pyav()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _write_folder(path: Path, frames: Frames) -> None:
    with staged_folder(path) as folder:
        for number, frame in enumerate(frames):
            write_bytes(folder / f"frame{number:05d}.png", png(frame))


def _pillow(format: str, **options: Any) -> Callable[[BinaryIO, Frames, float], None]:
    def write(file: BinaryIO, frames: Frames, fps: float) -> None:
        shown_ms = MS / fps
        if format == "GIF":
            shown_ms = max(2 * GIF_STEP_MS, round(shown_ms / GIF_STEP_MS) * GIF_STEP_MS)  # shorter ones are not shown
        first = next(frames)
        others = list(frames) if format == "PNG" else frames  # whose writer goes through them twice
        first.save(file, format, save_all=True, append_images=others, duration=round(shown_ms), loop=0, **options)

    return write


def _mp4(file: BinaryIO, frames: Frames, fps: float) -> None:
    av = _pyav()
    with av.open(file, "w", format="mp4") as container:
        name = H264 if H264 in av.codecs_available else MPEG4
        stream = container.add_stream(name, rate=Fraction(fps).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        if name == H264:
            stream.options = {"crf": "17"}
        for number, frame in enumerate(frames):
            picture = _even(frame.convert("RGB"))
            if number == 0:
                stream.width, stream.height = picture.size
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())


def _even(image: Image.Image) -> Image.Image:
    """Without the last row or column where their number is odd, which the codec does not take."""
    width, height = image.size
    return image.crop((0, 0, width - width % 2, height - height % 2))


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise Refusal("MP4 needs PyAV: pip install lora_trainer[video]; .gif and .webp do without") from error
    return av


WRITERS: Mapping[str, Callable[[BinaryIO, Frames, float], None]] = {
    ".gif": _pillow("GIF"),
    ".webp": _pillow("WEBP", quality=90, method=2),
    ".png": _pillow("PNG"),
    ".apng": _pillow("PNG"),
    ".mp4": _mp4,
}
