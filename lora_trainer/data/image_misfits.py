"""What keeps pictures from being the data set of a GAN, and the command that mends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from lora_trainer.data.image_header import Header
from lora_trainer.data.image_listing import listed

SMALLEST_PX = 8


def misfits(path: Path, headers: Mapping[str, Header], power_of_two: bool) -> Iterator[str]:
    """One sentence for each kind of fault, with the pictures that have it (the first 20)."""
    tool = _Tool(path)
    if clear := [name for name, header in headers.items() if header.has_alpha]:
        yield f"{path}: transparency in {listed(clear)}; lay them on white: {tool('--alpha white')}"
    if problem := _mixed_colours(headers):
        yield f"{path}: {problem}; make all alike: {tool('--channels rgb')}"
    sizes = Counter(header.size_px for header in headers.values()).most_common()
    if not sizes:
        return
    (height, width), _ = sizes[0]
    side = power_of_two_below(min(height, width))
    crop = f"--resolution {side} --transform center-crop"
    if len(sizes) > 1:
        odd = [f"{name} ({_spoken(each.size_px)})" for name, each in headers.items() if each.size_px != (height, width)]
        yield f"{path}: most pictures have {_spoken((height, width))} pixels, but not {listed(odd)}; use: {tool(crop)}"
    if height != width:
        like = [name for name, header in headers.items() if header.size_px == (height, width)]
        yield f"{path}: {_spoken((height, width))} pixels are not square: {listed(like)}; use: {tool(crop)}"
    elif power_of_two and not is_power_of_two(height):
        yield (
            f"{path}: {_spoken((height, width))} pixels, but the networks take 8, 16, 32, 64 and so on; "
            f"use: {tool(f'--resolution {side}')}"
        )


def is_power_of_two(side_px: int) -> bool:
    """And none below the smallest that the networks take."""
    return side_px >= SMALLEST_PX and side_px & (side_px - 1) == 0


def power_of_two_below(side_px: int) -> int:
    """The largest that is not above the side, so that nothing is enlarged, except to the smallest one."""
    return max(SMALLEST_PX, 1 << max(0, side_px.bit_length() - 1))


class _Tool:
    """The command that makes a data set of this one."""

    def __init__(self, path: Path) -> None:
        target = path.with_name(f"{path.stem}-new.zip")
        self.start = f"python -m tools.dataset_tool --source {_quoted(path)} --dest {_quoted(target)}"

    def __call__(self, options: str) -> str:
        return f"{self.start} {options}"


def _mixed_colours(headers: Mapping[str, Header]) -> str:
    grey = [name for name, header in headers.items() if header.channels == 1]
    coloured = [name for name, header in headers.items() if header.channels == 3]
    if not grey or not coloured:
        return ""
    if len(coloured) < len(grey):
        return f"most pictures are grey, but in colour are {listed(coloured)}"
    return f"most pictures are in colour, but grey are {listed(grey)}"


def _spoken(size_px: tuple[int, int]) -> str:
    """As people say it, width first."""
    return f"{size_px[1]} x {size_px[0]}"


def _quoted(path: Path) -> str:
    return f'"{path}"' if " " in str(path) else str(path)
