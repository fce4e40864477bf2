"""The pictures of a GAN and their labels, read from a folder or a zip as they are needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from lora_trainer.data.image_archive import ImageArchive, open_archive
from lora_trainer.data.image_header import Progress, read_headers
from lora_trainer.data.image_labels import BadLabels, ImageLabels, labels_of, read_labels
from lora_trainer.data.image_listing import LABELS, Listing, bad_file, entries_digest, listed
from lora_trainer.data.image_misfits import dataset_command, misfits
from lora_trainer.data.images import BadPicture, decode
from lora_trainer.data.pixel_file import PixelFolder, Unfinished, mapped
from lora_trainer.errors import Refusal

Image = NDArray[np.uint8]  # (c, h, w)
WORKERS = 4


@dataclass(frozen=True)
class LabelledImages:
    """Square pictures of one size, all in colour with `channels` 3 or all grey with 1, in the order of their names.

    With `mirror` there are twice as many, first all as they are and then all mirrored. Pickled into loader processes;
    threads may share it. `digest` is equal for two data sets of the same files with the same names and labels, wherever
    they lie; pixels are not looked at for it. `cache` is a file that has all of them decoded, or "".
    """

    archive: ImageArchive
    names: tuple[str, ...]
    resolution: int
    channels: int
    mirror: bool
    labels: ImageLabels | None
    digest: str
    notes: tuple[str, ...] = ()
    cache: str = ""

    def __len__(self) -> int:
        return len(self.names) * (2 if self.mirror else 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.resolution, self.resolution

    @property
    def label_dim(self) -> int:
        """How many numbers a label has; 0 without labels."""
        return self.labels.dim if self.labels else 0

    def name(self, item: int) -> str:
        return self.names[item % len(self.names)]

    def label(self, items: Sequence[int]) -> NDArray[np.float32]:
        """(b, label_dim)"""
        if self.labels is None:
            return np.zeros((len(items), 0), np.float32)
        return self.labels.of([item % len(self.names) for item in items])

    def image(self, item: int) -> Image:
        """Raises Refusal for damage that the header did not show."""
        number = item % len(self.names)
        pixels = mapped(self.cache).reshape(-1, *self.shape)[number] if self.cache else self.decoded(number)
        return pixels[:, :, ::-1] if item >= len(self.names) else pixels

    def decoded(self, number: int) -> Image:
        """The picture with this number among the names, from its file."""
        try:
            pixels = decode(self.archive.read(self.names[number])).transpose(2, 0, 1)[: self.channels]
        except BadPicture as error:
            raise Refusal(bad_file(self.archive.path, self.names[number], error)) from error
        if pixels.shape != self.shape:
            raise Refusal(f"{self.archive.path}: {self.names[number]}: changed since the start; start again")
        return pixels


def survey_images(
    path: Path, *, cond: bool = False, mirror: bool = False, power_of_two: bool = True, progress: Progress | None = None
) -> LabelledImages:
    """Read the header of every picture, and with `cond` the labels. Raises Refusal with all that is wrong.

    `power_of_two` is what networks ask for that halve the pictures down to 4 x 4.
    """
    archive = open_archive(path)
    listing = archive.listing()
    headers, marked, damaged = read_headers(archive, listing.pictures, progress)
    labels, notes, wrong = read_archive_labels(archive, listing, cond)
    found = misfits(headers, power_of_two)
    problems = [*wrong, *damaged, *(f"{path}: {fault}" for fault in found.problems)]
    if found.problems:
        problems.append(f"{path}: make a data set of it with: {dataset_command(path, found.options)}")
    if problems:
        raise Refusal(*problems)
    first = next(iter(headers.values()))
    digest = blake2b(entries_digest(marked).encode(), digest_size=16)
    if labels is not None:
        digest.update(f"{labels.dim}".encode() + labels.values.tobytes())
    return LabelledImages(
        archive, tuple(headers), first.size_px[0], first.channels, mirror, labels, digest.hexdigest(),
        (*listing.notes, *notes),
    )  # fmt: skip


def keep_decoded(images: LabelledImages, folder: PixelFolder, progress: Progress | None = None) -> LabelledImages:
    """The same pictures, decoded once into a file that all processes and later runs share, where they fit into it.

    Otherwise they stay as they are, and are decoded whenever they are needed. Raises Refusal for damaged pictures.
    """
    facts = images.digest, images.archive.times(images.names), images.shape, PIL.__version__
    key = blake2b(repr(facts).encode(), digest_size=16).hexdigest()
    total = math.prod(images.shape) * len(images.names)
    path = folder.pixels(key, total)
    if path is None and (file := folder.start(total)) is not None:
        _fill(file, images, progress)
        file.keep(key, None)
        path = folder.pixels(key, total)
    return images if path is None else replace(images, cache=str(path))


def _fill(file: Unfinished, images: LabelledImages, progress: Progress | None) -> None:
    def put(number: int) -> None:
        file.put(number * math.prod(images.shape), images.decoded(number))

    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            for done, _ in enumerate(pool.map(put, range(len(images.names))), 1):
                if progress is not None:
                    progress(done, len(images.names))
    except BaseException:
        file.discard()
        raise


def read_archive_labels(
    archive: ImageArchive, listing: Listing, cond: bool
) -> tuple[ImageLabels | None, list[str], list[str]]:
    """The labels, what is to be said about them, and what is wrong."""
    place = archive.path / listing.labels
    if not listing.labels:
        missing = f"{archive.path}: cond needs labels, but there is no dataset.json; add one, or leave cond out"
        return None, [], [missing] if cond else []
    folder = listing.labels.removesuffix(LABELS)
    names = [entry.name for entry in listing.pictures]
    try:
        table = {folder + name: label for name, label in read_labels(archive.read(listing.labels)).items()}
        if not table:
            problem = f"{place}: cond needs labels, but there are none in it; add them, or leave cond out"
            return None, [], [problem] if cond else []
        if not cond:
            return None, [f"{place}: its labels are not used without cond"], []
        labels = labels_of(names, table)
    except BadPicture as error:
        return None, [], [f"{place}: {error}"]
    except BadLabels as error:
        problems = [f"{place}: {problem}" for problem in error.problems]
        return (None, [], problems) if cond else (None, [f"{problems[0]} (not used without cond)"], [])
    unused = [str(number) for number in labels.unused]
    return labels, [f"{place}: no picture has class {listed(unused)}"] if unused else [], []
