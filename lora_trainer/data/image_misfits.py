"""What keeps pictures from being the data set of a GAN, and the options of `tools.dataset_tool` that mend it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.data.image_header import Header
from lora_trainer.data.image_listing import listed

SMALLEST_PX = 8


@dataclass(frozen=True)
class Misfits:
    """Phrases that follow the name of the data set, and all options that together mend what they say."""

    problems: tuple[str, ...]
    options: str


def misfits(headers: Mapping[str, Header], power_of_two: bool) -> Misfits:
    """Each kind of fault, with the pictures that have it (the first 20)."""
    faults = [*_colour_faults(headers), *_size_faults(headers, power_of_two)]
    return Misfits(tuple(fault for fault, _ in faults), " ".join(dict.fromkeys(option for _, option in faults)))


def dataset_command(path: Path, options: str) -> str:
    """What makes a data set of these pictures, to be typed."""
    path = path if path.name else path.absolute()
    target = path.parent / f"{path.stem}-new.zip"
    return f"python -m tools.dataset_tool --source {_quoted(path)} --dest {_quoted(target)} {options}"


def is_power_of_two(side_px: int) -> bool:
    """And none below the smallest that the networks take."""
    return side_px >= SMALLEST_PX and side_px & (side_px - 1) == 0


def power_of_two_below(side_px: int) -> int:
    """The largest that is not above the side, so that nothing is enlarged, except to the smallest one."""
    return max(SMALLEST_PX, 1 << max(0, side_px.bit_length() - 1))


def spoken_size(size_px: tuple[int, int]) -> str:
    """As people say it, width first."""
    return f"{size_px[1]} x {size_px[0]}"


def _colour_faults(headers: Mapping[str, Header]) -> Iterator[tuple[str, str]]:
    if clear := [name for name, header in headers.items() if header.has_alpha]:
        yield f"an alpha channel, which says what is transparent: {listed(clear)}", "--alpha white"
    grey = [name for name, header in headers.items() if header.channels == 1]
    coloured = [name for name, header in headers.items() if header.channels == 3]
    if grey and len(grey) <= len(coloured):
        yield f"most pictures are in colour, but these are grey: {listed(grey)}", "--channels rgb"
    elif grey and coloured:
        yield f"most pictures are grey, but these are in colour: {listed(coloured)}", "--channels rgb"


def _size_faults(headers: Mapping[str, Header], power_of_two: bool) -> Iterator[tuple[str, str]]:
    sizes = Counter(header.size_px for header in headers.values())
    if not sizes:
        return
    usual = sizes.most_common(1)[0][0]
    resolution = f"--resolution {power_of_two_below(min(usual))}"
    crop = f"{resolution} --transform center-crop"
    if len(sizes) > 1:
        odd = [f"{name} ({spoken_size(each.size_px)})" for name, each in headers.items() if each.size_px != usual]
        yield f"most pictures have {spoken_size(usual)} pixels, but not these: {listed(odd)}", crop
    if usual[0] != usual[1]:
        like = [name for name, each in headers.items() if each.size_px == usual]
        yield f"{spoken_size(usual)} pixels are not square: {listed(like)}", crop
    elif power_of_two and not is_power_of_two(usual[0]):
        option = crop if len(sizes) > 1 else resolution
        yield f"{spoken_size(usual)} pixels, but the networks take squares of 8, 16, 32, 64 and so on", option


def _quoted(path: Path) -> str:
    return f'"{path}"' if " " in str(path) else str(path)
