"""What is to be said of pictures that are small: those that are enlarged, and those that cannot be measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lora_trainer.data.pairs import Pair

MEASURED_PX = 16  # that VGG halves four times, for LPIPS; SSIM's window has 11
SHOWN = 3


def enlarged(pairs: Sequence[Pair], side_px: int) -> Iterator[str]:
    """A note of the pictures out of which no square of this side can be cut as they are."""
    if names := [pair.name for pair in pairs if min(pair.gt_px) < side_px]:
        shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        what = "1 picture has" if len(names) == 1 else f"{len(names)} pictures have"
        yield f"{what} a side of less than {side_px} px and will be enlarged, which blurs what is learnt from: {shown}"


def too_small_to_measure(pairs: Sequence[Pair]) -> Iterator[str]:
    """A problem for each."""
    for pair in pairs:
        height, width = pair.gt_px
        if min(height, width) < MEASURED_PX:
            yield (
                f"{pair.spoken('gt')}: {width} x {height} pixels, too small to be measured; "
                f"both sides must have {MEASURED_PX}"
            )
