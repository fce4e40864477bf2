"""The images of a GAN's training for the dataset doctor, before any of them is opened."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path, PurePosixPath

from lora_trainer.config.gan import GanPreset
from lora_trainer.config.reader import Loaded
from lora_trainer.data.doctor.dataset import OTHER, Dataset, Entry, Wrong
from lora_trainer.data.doctor.rules import SquareRules
from lora_trainer.data.image_archive import open_archive
from lora_trainer.data.labelled_images import read_archive_labels
from lora_trainer.trainers.job import attempt


def gan_dataset(loaded: Loaded) -> Dataset:
    preset = loaded.preset
    assert isinstance(preset, GanPreset)
    path, problems = Path(preset.data), list[str]()
    title = f"{loaded.path.name}, a preset of the trainer gan"
    if not path.exists():
        problems.append(loaded.wrong(f"{preset.data}: there is no such file or folder; correct the path", "data"))
        return Dataset(title, (), SquareRules(path), problems=tuple(Wrong(OTHER, text) for text in problems))
    archive = attempt(lambda: open_archive(path), problems)
    listing = attempt(archive.listing, problems) if archive is not None else None
    entries: list[Entry] = []
    rows = [("mirrored", "half of what is shown" if preset.mirror else "none")]
    counts: tuple[tuple[str, int], ...] = ()
    notes: list[str] = []
    if archive is not None and listing is not None:
        labels, notes, wrong = read_archive_labels(archive, listing, preset.cond)
        problems += wrong
        if labels is not None:
            rows.append(("labels", labels.spoken))
            if labels.are_classes:
                counted = Counter(labels.values.tolist())
                counts = tuple((f"class {number}", count) for number, count in sorted(counted.items()))
        for found in listing.pictures:
            name = found.name
            spoken, folder = f"{path}: {name}", name.rpartition("/")[0]
            entries.append(Entry(name, spoken, partial(archive.read, name), PurePosixPath(name).suffix, folder))
    return Dataset(
        title, tuple(entries), SquareRules(path), preset.batch, problems=tuple(Wrong(OTHER, text) for text in problems),
        notes=tuple(notes), rows=tuple(rows), word="image", classes=counts,
    )  # fmt: skip
