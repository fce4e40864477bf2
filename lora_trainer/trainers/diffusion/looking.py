"""The survey of a diffusion training's pictures, which says where it is when it takes long."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack

from lora_trainer.data.buckets import BucketSettings
from lora_trainer.data.folders import Picture
from lora_trainer.data.survey import Progress, Sample, survey
from lora_trainer.engine.console import PLAIN_EVERY_S, console, counted

log = logging.getLogger(__name__)

PATIENCE_S = 3.0


def look_at_pictures(pictures: Sequence[Picture], settings: BucketSettings, *, whole: bool) -> tuple[Sample, ...]:
    """``survey``, heard of when it takes longer than PATIENCE_S. Raises Refusal."""
    with ExitStack() as stack:
        return survey(pictures, settings, whole=whole, on_progress=_teller(stack))


def _teller(stack: ExitStack) -> Progress:
    """Is called with (done, total): first says nothing, then shows a bar, or lines where there is no terminal."""
    began = said = time.monotonic()
    bar: Progress | None = None

    def tell(done: int, total: int) -> None:
        nonlocal said, bar
        now = time.monotonic()
        if bar is None:
            if now - began < PATIENCE_S or done == total:
                return
            log.info("looking at %d pictures", total)
            bar, said = stack.enter_context(counted("looking at pictures", total)), now
        bar(done, total)
        if not console.is_terminal and now - said >= PLAIN_EVERY_S:
            said = now
            log.info("looked at %d of %d pictures", done, total)

    return tell
