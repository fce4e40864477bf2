"""Where crops come from: decoded pictures in one file that all readers map into memory, or the files themselves."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from lora_trainer.data.images import Pixels
from lora_trainer.data.pairs import Pair, pairs_fingerprint

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
        flat = _mapped(self.cache)[offset : offset + height * width * 3]
        pixels: Pixels = flat.reshape(height, width, 3)
        return pixels


def open_store(pairs: Sequence[Pair], cache_gib: float, scale: int, folder: Path | None = None) -> PairStore:
    """With a cache where all decoded pictures fit into so many GiB, made once and found again by its content."""
    offsets, total = _layout(pairs, scale)
    if total > cache_gib * 2**30:
        return PairStore(pairs)
    folder = folder or Path(tempfile.gettempdir()) / "lora_trainer"
    name = blake2b(f"{pairs_fingerprint(pairs)} {scale}".encode(), digest_size=16).hexdigest()
    path = folder / f"{name}.pixels"
    if not _is_whole(path, total):
        _write(path, pairs, offsets, total)
    return PairStore(pairs, str(path), offsets)


def _layout(pairs: Sequence[Pair], scale: int) -> tuple[tuple[tuple[int, int], ...], int]:
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


def _write(path: Path, pairs: Sequence[Pair], offsets: Sequence[tuple[int, int]], total: int) -> None:
    """Decode every picture into one file, which has its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".unfinished")
    os.close(handle)
    try:
        pixels = np.memmap(unfinished, np.uint8, "w+", shape=(max(1, total),))

        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(_put, [pixels] * len(pairs), pairs, offsets))
        pixels.flush()
        digest = _digest(pixels)
        del pixels
        Path(unfinished).replace(path)
        _note(path).write_text(json.dumps({"bytes": total, "digest": digest}), encoding="utf-8")
    finally:
        Path(unfinished).unlink(missing_ok=True)


def _put(pixels: Pixels, pair: Pair, offsets: tuple[int, int]) -> None:
    for which, offset in zip(("gt", "lq"), offsets, strict=True):
        if offset >= 0:
            flat = pair.read(which).reshape(-1)
            pixels[offset : offset + flat.size] = flat


def _is_whole(path: Path, total: int) -> bool:
    try:
        note = json.loads(_note(path).read_text(encoding="utf-8"))
        if note["bytes"] != total or path.stat().st_size != max(1, total):
            return False
        return bool(note["digest"] == _digest(np.memmap(path, np.uint8, "r")))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _note(path: Path) -> Path:
    return path.with_suffix(".json")


def _digest(pixels: Pixels) -> str:
    return blake2b(pixels.data, digest_size=16).hexdigest()


@functools.lru_cache(maxsize=8)
def _mapped(path: str) -> Pixels:
    return np.memmap(path, np.uint8, "r")


@functools.lru_cache(maxsize=KEPT_DECODED)
def _decoded(pair: Pair, which: str) -> Pixels:
    return pair.read(which)
