"""Folders of degraded pictures and their originals: `Blur/LQ` and `Blur/GT`, `Rain/LQ` and `Rain/GT`, or one pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.data.pairs import picture_files
from lora_trainer.errors import Refusal, did_you_mean

LQ, GT = "LQ", "GT"  # in capitals or not


@dataclass(frozen=True)
class FoundPair:
    """Two files of one name; `name` is the type of degradation, and the place below GT without ending."""

    name: str
    kind: str
    lq: Path
    gt: Path


def pairs_in_folders(root: Path, kinds: Sequence[str], problems: list[str]) -> list[FoundPair]:
    """Every pair, by type and name; of these types only where some are given. What is wrong is added to `problems`."""
    found: list[FoundPair] = []
    for kind, lq, gt in _kinds(root, kinds, problems):
        found += pairs_of_two_folders(lq, gt, kind, problems)
    return found


def pairs_of_two_folders(lq: Path, gt: Path, kind: str, problems: list[str]) -> list[FoundPair]:
    """Files of one name, else of one name without ending, below the two folders, sorted by name."""
    sides: list[dict[str, Path]] = []
    for folder in (lq, gt):
        try:
            sides.append(picture_files(folder))
        except Refusal as refusal:
            problems += refusal.problems
    if len(sides) < 2:
        return []
    matches = _matched(*sides)
    for side, other, partner in ((0, gt, "original"), (1, lq, "degraded picture")):
        lone = [file for name, file in sides[side].items() if name not in {names[side] for names in matches}]
        problems += [f"{file}: has no {partner} of its name in {other}" for file in lone]
    prefix = f"{kind}/" if kind else ""
    return [
        FoundPair(f"{prefix}{_stem(name)}", kind, sides[0][degraded], sides[1][name])
        for degraded, name in sorted(matches, key=lambda names: names[1])
    ]


def _kinds(root: Path, kinds: Sequence[str], problems: list[str]) -> Iterator[tuple[str, Path, Path]]:
    """Type, LQ folder and GT folder. A root that has LQ and GT itself is of no type."""
    if not root.is_dir():
        problems.append(f"{root}: there is no such folder")
        return
    below = _subfolders(root)
    usable = [name for name, folder in below.items() if _sides(folder)]
    named = [(kind, below[kind]) for kind in kinds or usable if kind in below]
    if not kinds and _sides(root):
        named.append(("", root))
    if not kinds and not named:
        problems.append(f"{root}: holds no folder with {LQ} and {GT} in it, such as {root / 'Rain' / LQ}")
    there = f"; there is {', '.join(usable)}" if usable else ""
    problems += [
        f"{root / kind}: there is no such folder{there}{did_you_mean(kind, usable)}"
        for kind in kinds
        if kind not in below
    ]
    for kind, folder in named:
        sides = _sides(folder)
        problems += [f"{folder}: has no folder {side} in it" for side in (LQ, GT) if side not in sides]
        if len(sides) == 2:
            yield kind, sides[LQ], sides[GT]


def _subfolders(folder: Path) -> dict[str, Path]:
    return {each.name: each for each in sorted(folder.iterdir()) if each.is_dir() and not each.name.startswith(".")}


def _sides(folder: Path) -> Mapping[str, Path]:
    """The folders LQ and GT by these names, as far as they are there."""
    return {name.upper(): each for name, each in _subfolders(folder).items() if name.upper() in (LQ, GT)}


def _matched(lq: Mapping[str, Path], gt: Mapping[str, Path]) -> list[tuple[str, str]]:
    """The names in LQ and in GT that belong together. A stem that occurs twice on a side decides nothing."""
    matches = [(name, name) for name in gt if name in lq]
    same = {name for name, _ in matches}
    left, right = (_by_stem(name for name in side if name not in same) for side in (lq, gt))
    for stem, names in right.items():
        others = left.get(stem, [])
        if len(names) == len(others) == 1:
            matches.append((others[0], names[0]))
    return matches


def _by_stem(names: Iterator[str]) -> dict[str, list[str]]:
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(_stem(name), []).append(name)
    return stems


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix()
