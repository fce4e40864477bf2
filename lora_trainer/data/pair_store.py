"""Where crops come from: decoded pictures in one file that all readers map into memory, or the files themselves."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.data.images import Pixels
from lora_trainer.data.pairs import Pair, pixels_key
from lora_trainer.data.pixel_file import GIB, PixelFolder, Unfinished, default_folder, mapped

log = logging.getLogger(__name__)

WORKERS = 4
KEPT_DECODED = 8  # whole pictures that a reader without a cache keeps


@dataclass(frozen=True)
class PairStore:
    """Crops of pictures by their number. Pickled into loader processes; `cache` is "" without one."""

    pairs: Sequence[Pair]
    cache: str = ""
    offsets: Sequence[tuple[int, int]] = ()  # of gt and lq in the cache, in bytes; -1 where there is no lq

    def crop(self, item: int, top: int, left: int, side: int, which: str, scale: int = 1) -> Pixels:
        """(side, side, 3) of picture "gt" or "lq"; places in the pixels of that picture."""
        return self.picture(item, which, scale)[top : top + side, left : left + side]

    def picture(self, item: int, which: str, scale: int = 1) -> Pixels:
        """The whole picture, mapped or decoded. `scale` is how many times smaller lq is than gt."""
        if not self.cache:
            return _decoded(self.pairs[item], which)
        height, width = self.pairs[item].gt_px
        offset = self.offsets[item][0]
        if which == "lq":
            height, width, offset = height // scale, width // scale, self.offsets[item][1]
        flat = mapped(self.cache)[offset : offset + height * width * 3]
        pixels: Pixels = flat.reshape(height, width, 3)
        return pixels


def open_store(pairs: Sequence[Pair], cache_gib: float, scale: int, folder: Path | None = None) -> PairStore:
    """With a cache where all decoded pictures fit into so many GiB, made once and found again by its content.

    The survey makes it already where its settings have the same `cache_gib`. Raises BadPicture.
    """
    offsets, total = _layout(pairs, scale)
    pixels = PixelFolder(folder or default_folder(), cache_gib)
    key = pixels_key(pairs)
    path = pixels.pixels(key, total)
    if path is None and (file := pixels.start(total)) is not None:
        _fill(file, pairs, offsets)
        file.keep(key, pixels.facts(key))
        path = pixels.pixels(key, total)
    if path is not None:
        return PairStore(pairs, str(path), offsets)
    if cache_gib:
        log.warning(
            "%d pictures are decoded anew for every crop, because all of them (%.1f GiB) are not kept decoded; raise "
            "cache_gib (%g), or cut them up with python -m tools.extract_subimages",
            len(pairs), total / GIB, cache_gib,
        )  # fmt: skip
    return PairStore(pairs)


def _layout(pairs: Sequence[Pair], scale: int) -> tuple[tuple[tuple[int, int], ...], int]:
    """Where the sides of each pair lie, one behind the other, and the bytes in all."""
    at, offsets = 0, []
    for pair in pairs:
        height, width = pair.gt_px
        gt, lq = at, -1
        at += height * width * 3
        if pair.lq is not None:
            lq = at
            at += (height // scale) * (width // scale) * 3
        offsets.append((gt, lq))
    return tuple(offsets), at


def _fill(file: Unfinished, pairs: Sequence[Pair], offsets: Sequence[tuple[int, int]]) -> None:
    def put(pair: Pair, places: tuple[int, int]) -> None:
        for which, offset in zip(pair.sides, places, strict=False):
            file.put(offset, pair.read(which))

    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(put, pairs, offsets))
    except BaseException:
        file.discard()
        raise


@functools.lru_cache(maxsize=KEPT_DECODED)
def _decoded(pair: Pair, which: str) -> Pixels:
    return pair.read(which)
