"""What every trainer's report shows of the pictures: a few of them, how many there are of each size, which tags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from PIL import Image

from lora_trainer.data.images import BadPicture, read_picture
from lora_trainer.data.pairs import Pair
from lora_trainer.data.survey import Sample
from lora_trainer.engine.run_facts import Counts, Thumbnail
from lora_trainer.engine.thumbnails import data_uri, shrunk
from lora_trainer.errors import Refusal

MOST_THUMBNAILS, THUMBNAIL_PX, MOST_BARS = 12, 224, 24
LONGEST_CAPTION, LONGEST_TAG = 300, 60
MOST_CAPTIONS = 50_000  # of which tags are counted
LARGEST_PX = 25_000_000  # what is larger takes too long for a thumbnail


def sample_thumbnails(samples: Sequence[Sample]) -> tuple[Thumbnail, ...]:
    """Evenly chosen, with their captions."""
    fit = [sample for sample in samples if sample.size_px[0] * sample.size_px[1] <= LARGEST_PX]
    return thumbnails([(sample.caption or sample.name, partial(read_picture, sample.path)) for sample in fit])


def pair_thumbnails(pairs: Sequence[Pair]) -> tuple[Thumbnail, ...]:
    """The good pictures of evenly chosen pairs."""
    fit = [pair for pair in pairs if pair.gt_px[0] * pair.gt_px[1] <= LARGEST_PX]
    return thumbnails([(pair.name, partial(pair.read, "gt")) for pair in fit])


def thumbnails(pictures: Sequence[tuple[str, Callable[[], np.ndarray]]]) -> tuple[Thumbnail, ...]:
    """Of pictures (h, w, 3) or (h, w) with what to say below them, some evenly chosen ones."""
    step = max(1, len(pictures) / MOST_THUMBNAILS)
    found = []
    for number in range(min(MOST_THUMBNAILS, len(pictures))):
        caption, read = pictures[int(number * step)]
        try:
            small = shrunk(Image.fromarray(read()), THUMBNAIL_PX)
        except (BadPicture, OSError, Refusal):  # whoever trains with it tells of that
            continue
        found.append(Thumbnail(data_uri(small), cut(caption, LONGEST_CAPTION), *small.size))
    return tuple(found)


def size_counts(title: str, sizes: Mapping[tuple[int, int], int]) -> tuple[Counts, ...]:
    """How many pictures each size (height, width) has, where there are several."""
    ordered = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    return bars(title, [(f"{width} x {height}", count) for (height, width), count in ordered])


def tag_counts(captions: Sequence[str], separator: str = ",") -> tuple[Counts, ...]:
    """The most frequent tags. Whole sentences, each of which stands once, are none."""
    counted: Counter[str] = Counter()
    for caption in captions[:: 1 + len(captions) // MOST_CAPTIONS]:
        counted.update(tag for part in caption.split(separator) if (tag := part.strip()))
    repeated = [(cut(tag, LONGEST_TAG), count) for tag, count in counted.most_common() if count > 1]
    return bars(f"Tags ({len(counted):,} different ones)", repeated)


def bars(title: str, rows: Sequence[tuple[str, int]]) -> tuple[Counts, ...]:
    """Nothing where there is nothing to compare; of many the first ones."""
    if len(rows) < 2:
        return ()
    more = f"; the first {MOST_BARS} of {len(rows):,}" if len(rows) > MOST_BARS else ""
    return (Counts(title + more, tuple(rows[:MOST_BARS])),)


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def cut(text: str, longest: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 4]} ..."
