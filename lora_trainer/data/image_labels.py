"""The labels of pictures, from a `dataset.json` as StyleGAN's data sets have it.

{"labels": [["00000/img00000000.png", 6], ...]} with a class for each picture, or with a list of numbers for each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_trainer.data.image_listing import first_of, listed

Label = int | tuple[float, ...]

EXAMPLE = '"labels": [["00000/img00000000.png", 6], ...]'
KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
MOST_CLASSES = 100_000  # a one-hot label is as long


@dataclass(frozen=True)
class ImageLabels:
    """One label for each picture: (n,) int64 classes, which become one-hot vectors, or (n, dim) float32 numbers."""

    values: NDArray[Any]
    dim: int

    def of(self, items: Sequence[int]) -> NDArray[np.float32]:
        """(b, dim)"""
        chosen = self.values[np.asarray(items, np.int64)]
        if chosen.ndim == 2:
            return np.asarray(chosen, np.float32)
        one_hot = np.zeros((len(chosen), self.dim), np.float32)
        one_hot[np.arange(len(chosen)), chosen] = 1
        return one_hot

    @property
    def are_classes(self) -> bool:
        return self.values.ndim == 1

    @property
    def unused(self) -> list[int]:
        """Classes that no picture has."""
        return sorted(set(range(self.dim)) - set(self.values.tolist())) if self.are_classes else []

    @property
    def spoken(self) -> str:
        return f"{self.dim} classes" if self.are_classes else f"labels of {self.dim} numbers"


class BadLabels(Exception):
    """What is wrong with labels, each problem one phrase that follows the file's name."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read_labels(data: bytes) -> dict[str, Label]:
    """The label of each picture by its name; empty when the file says that there are none. Raises BadLabels."""
    try:
        content = json.loads(data)
    except UnicodeDecodeError as error:
        raise BadLabels(f"not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise BadLabels(f"not JSON ({error}); write it anew") from error
    if not isinstance(content, dict):
        raise BadLabels(f"{_kind(content)} instead of an object; it should be {{{EXAMPLE}}}")
    rows = content.get("labels")
    if rows is None:
        return {}
    if not isinstance(rows, list):
        raise BadLabels(f'"labels" is {_kind(rows)}; it should be {EXAMPLE}')
    labels: dict[str, Label] = {}
    problems = []
    for number, row in enumerate(rows):
        name, label, problem = _row(row)
        if not problem and name in labels and labels[name] != label:
            problem = f"{name} has two labels, {_spoken(labels[name])} and {_spoken(label)}; keep one"
        if problem:
            problems.append(f"row {number + 1} of labels: {problem}")
        else:
            labels[name] = label
    if problems:
        raise BadLabels(*first_of(problems))
    return labels


def labels_of(names: Sequence[str], labels: Mapping[str, Label]) -> ImageLabels:
    """The labels of these pictures in their order. Raises BadLabels."""
    problems = []
    if strange := sorted(labels.keys() - set(names)):
        problems.append(f"labels of files that are not there: {listed(strange)}; take them out")
    if missing := [name for name in names if name not in labels]:
        problems.append(f"no label for {listed(missing)}; add them, or take the pictures out")
    if len(kinds := {_length(label) for label in labels.values()}) > 1:
        problems.append(f"labels of different kinds: {listed(_one_of_each(labels, sorted(kinds)))}; give all the same")
    if problems:
        raise BadLabels(*problems)
    found = [labels[name] for name in names]
    if kinds == {0}:
        classes = np.array(found, np.int64)
        return ImageLabels(classes, int(classes.max()) + 1)
    return ImageLabels(np.array(found, np.float32), kinds.pop())


def label_json(labels: Mapping[str, Label], classes: Sequence[str] = ()) -> bytes:
    """The file that holds these labels, or says that there are none; with what the classes are called, for people."""
    rows = [[name, list(label) if isinstance(label, tuple) else label] for name, label in labels.items()]
    content = {"labels": rows or None, **({"classes": list(classes)} if classes else {})}
    return json.dumps(content, ensure_ascii=False).encode("utf-8")


def _row(row: Any) -> tuple[str, Label, str]:
    """The name, the label, and what is wrong, or ""."""
    if not (isinstance(row, list) and len(row) == 2 and isinstance(row[0], str)):
        return "", 0, f"{_shortened(row)} is not a file name and a label"
    name, label = row[0].replace("\\", "/").removeprefix("./"), row[1]
    if isinstance(label, int) and not isinstance(label, bool):
        if 0 <= label < MOST_CLASSES:
            return name, label, ""
        return name, 0, f"{name}: classes are numbered from 0 to at most {MOST_CLASSES - 1}, not {label}"
    if isinstance(label, list) and label and all(_is_number(each) for each in label):
        return name, tuple(float(each) for each in label), ""
    return name, 0, f"{name}: {_shortened(label)} is neither a class such as 6 nor a list of numbers"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30 and math.isfinite(value)


def _length(label: Label) -> int:
    """How many numbers it has, 0 for a class."""
    return len(label) if isinstance(label, tuple) else 0


def _one_of_each(labels: Mapping[str, Label], lengths: Sequence[int]) -> list[str]:
    first = {_length(label): f"{name} has {_spoken(label)}" for name, label in reversed(list(labels.items()))}
    return [first[length] for length in lengths]


def _spoken(label: Label) -> str:
    return f"{len(label)} numbers" if isinstance(label, tuple) else f"class {label}"


def _kind(value: Any) -> str:
    return KINDS.get(type(value), "a number")


def _shortened(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
