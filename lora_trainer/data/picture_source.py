"""Where the pictures of a data set come from: a folder, a zip, an LMDB, or the archives of CIFAR and MNIST."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lora_trainer.data.cifar_archive import read_cifar
from lora_trainer.data.image_archive import ImageArchive, open_archive
from lora_trainer.data.image_header import Header, Progress, read_headers
from lora_trainer.data.image_labels import BadLabels, Label, labels_of, read_labels
from lora_trainer.data.image_listing import LABELS, Listing, listed
from lora_trainer.data.images import BadPicture
from lora_trainer.data.lmdb_folder import LmdbFolder
from lora_trainer.data.mnist_archive import read_mnist
from lora_trainer.data.picture_fitting import Raw
from lora_trainer.errors import Refusal

T = TypeVar("T")

LABEL_MODES = ("auto", "folders", "none")


@dataclass(frozen=True)
class SourcePicture:
    """`read` gives the file or the pixels, and raises BadPicture."""

    name: str
    read: Callable[[], Raw]
    label: Label | None = None


@dataclass(frozen=True)
class Source:
    """`headers` are there where all pictures could be asked quickly; `broken` then are sentences about those that could
    not. `classes` are the names of the labels where they have any."""

    path: Path
    pictures: Sequence[SourcePicture]
    headers: Mapping[str, Header] = field(default_factory=dict)
    broken: Sequence[str] = ()
    classes: Sequence[str] = ()


@dataclass(frozen=True)
class SourceSettings:
    """`labels` is one of LABEL_MODES; of more than `most` pictures the first ones are taken, 0 takes all."""

    path: Path
    labels: str = "auto"
    most: int = 0
    progress: Progress | None = None


def open_source(settings: SourceSettings) -> Source:
    """Raises Refusal for what is no source of pictures, with what it could be."""
    path = settings.path
    if not path.exists():
        raise Refusal(f"{path}: there is no such file or folder; correct --source")
    kind = next((read for fits, read in KINDS if fits(path)), None)
    if kind is None:
        raise Refusal(
            f"{path}: not a kind of file that pictures are taken from; give a folder, a zip, an LMDB, "
            "cifar-10-python.tar.gz or train-images-idx3-ubyte.gz"
        )
    if settings.labels == "folders" and kind is not _from_archive:
        raise Refusal(f"{path}: --labels folders is for a folder or a zip; leave it out")
    return kind(settings)


def _from_archive(settings: SourceSettings) -> Source:
    archive = open_archive(settings.path)
    found = archive.listing()
    labels, classes = _archive_labels(archive, found, settings.labels)
    entries = _first(found.pictures, settings.most)
    headers, _, broken = read_headers(archive, entries, settings.progress)
    pictures = [
        SourcePicture(entry.name, partial(archive.read, entry.name), labels.get(entry.name)) for entry in entries
    ]
    return Source(settings.path, pictures, headers, broken, classes)


def _from_lmdb(settings: SourceSettings) -> Source:
    folder = LmdbFolder(settings.path)
    keys = _first(folder.all_keys(), settings.most)
    if not keys:
        raise Refusal(f"{settings.path}: the LMDB is empty; download it again")
    return Source(settings.path, [SourcePicture(key, partial(folder.read, key)) for key in keys])


def _from_cifar(settings: SourceSettings) -> Source:
    found = read_cifar(settings.path)
    return _of_arrays(settings, found.pixels, found.classes)


def _from_mnist(settings: SourceSettings) -> Source:
    found = read_mnist(settings.path, settings.labels != "none")
    return _of_arrays(settings, found.pixels, found.classes)


def _of_arrays(settings: SourceSettings, pixels: NDArray[np.uint8], classes: NDArray[np.int64] | None) -> Source:
    numbers = range(min(len(pixels), settings.most or len(pixels)))
    labels = [None] * len(pixels) if classes is None or settings.labels == "none" else classes.tolist()
    pictures = [
        SourcePicture(f"picture {number}", partial(pixels.__getitem__, number), labels[number]) for number in numbers
    ]
    return Source(settings.path, pictures)


def _archive_labels(archive: ImageArchive, found: Listing, mode: str) -> tuple[Mapping[str, Label], Sequence[str]]:
    """Each picture's label by its name, and the names of the classes. Raises Refusal."""
    names = [entry.name for entry in found.pictures]
    if mode == "folders":
        return _folder_classes(archive.path, names)
    if mode == "none" or not found.labels:
        return {}, ()
    place, folder = archive.path / found.labels, found.labels.removesuffix(LABELS)
    try:
        labels = {folder + name: label for name, label in read_labels(archive.read(found.labels)).items()}
        if labels:
            labels_of(names, labels)
    except (BadLabels, BadPicture) as error:
        problems = error.problems if isinstance(error, BadLabels) else (str(error),)
        cure = f"{place}: to do without labels, add --labels none"
        raise Refusal(*(f"{place}: {problem}" for problem in problems), cure) from error
    return labels, ()


def _folder_classes(path: Path, names: Sequence[str]) -> tuple[Mapping[str, Label], Sequence[str]]:
    """A class for each sub-folder, numbered by name. Folders in which all pictures lie make no classes."""
    parts = [name.split("/") for name in names]
    shared = 0
    while len({tuple(each[: shared + 1]) for each in parts}) == 1 and all(len(each) > shared + 1 for each in parts):
        shared += 1
    if loose := [name for name, each in zip(names, parts, strict=True) if len(each) < shared + 2]:
        raise Refusal(f"{path}: --labels folders, but in no folder of a class lie {listed(loose)}; move them into one")
    folder_of = [each[shared] for each in parts]
    classes = sorted(set(folder_of))
    return {name: classes.index(folder) for name, folder in zip(names, folder_of, strict=True)}, classes


def _is_lmdb(path: Path) -> bool:
    return path.is_dir() and ((path / "data.mdb").exists() or path.name.endswith(("_lmdb", ".lmdb")))


def _is_archive(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() == ".zip"


def _is_cifar(path: Path) -> bool:
    return re.fullmatch(r"cifar-100?-python.*\.(tar|tar\.gz|tgz)", path.name.lower()) is not None


def _is_mnist(path: Path) -> bool:
    return "images" in path.name and "idx3-ubyte" in path.name


def _first(items: Sequence[T], most: int) -> Sequence[T]:
    return items[:most] if most else items


KINDS: Sequence[tuple[Callable[[Path], bool], Callable[[SourceSettings], Source]]] = (
    (_is_lmdb, _from_lmdb),
    (_is_archive, _from_archive),
    (_is_cifar, _from_cifar),
    (_is_mnist, _from_mnist),
)
