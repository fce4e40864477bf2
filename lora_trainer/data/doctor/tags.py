"""Count tags, and find those that are rare, spelled in several ways, or in every caption of a folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lora_trainer.data.captions import split_tags
from lora_trainer.data.doctor.dataset import Entry

TYPO_LETTERS = 5  # below it, one letter more or less makes another word too often
TYPO_TIMES = 4  # how much more frequent the right spelling is at least
NEARLY_ALL = 0.8
LONGEST_SPELLED = 40  # letters; what is longer is a sentence
ONCE_SHARE = 0.5  # of the uses: where more stand in one caption alone, the captions are sentences


@dataclass(frozen=True)
class Spellings:
    """Tags that seem to mean the same, the most frequent first, each with its number of captions."""

    tags: tuple[tuple[str, int], ...]
    is_typo: bool


@dataclass(frozen=True)
class Common:
    """The tags in every caption of a folder, and one that only some captions lack, with the numbers of those."""

    folder: str
    captions: int
    in_all: tuple[str, ...]
    nearly: str = ""
    lacking: tuple[int, ...] = ()


@dataclass(frozen=True)
class TagFindings:
    """`counts` is in how many captions each tag stands. Where captions are sentences there are no tags to speak of."""

    counts: Mapping[str, int]
    are_sentences: bool
    once: tuple[str, ...]
    spellings: tuple[Spellings, ...]
    common: tuple[Common, ...]
    doubled: tuple[tuple[int, str], ...]
    per_caption: float


def tag_findings(entries: Sequence[Entry], texts: Mapping[str, Sequence[int]], separator: str) -> TagFindings:
    """`texts` has for each caption the numbers of its pictures."""
    tags_of: dict[int, list[str]] = {}
    for text, numbers in texts.items():
        tags = [tag for line in text.split("\n") for tag in split_tags(line, separator)]
        tags_of.update(dict.fromkeys(numbers, tags))
    counts = Counter(tag for tags in tags_of.values() for tag in dict.fromkeys(tags))
    uses = counts.total()
    once = sorted(tag for tag, count in counts.items() if count == 1)
    sentences = len(tags_of) > 1 and len(once) > ONCE_SHARE * uses
    doubled = sorted((number, twice) for number, tags in tags_of.items() if (twice := _twice(tags)))
    if sentences:
        return TagFindings(dict(counts), True, (), (), (), (), uses / max(1, len(tags_of)))
    return TagFindings(
        dict(counts.most_common()), False, tuple(once) if len(tags_of) > 1 else (), tuple(spellings(counts)),
        tuple(_common(entries, tags_of)), tuple(doubled), uses / max(1, len(tags_of)),
    )  # fmt: skip


def spellings(counts: Mapping[str, int]) -> list[Spellings]:
    """Tags that differ in case, blanks, hyphens and underscores alone, and rare ones that are one letter off."""
    plain: dict[str, list[str]] = {}
    for tag in counts:
        if len(tag) <= LONGEST_SPELLED:
            plain.setdefault(_plain(tag), []).append(tag)
    found = [Spellings(_ordered(tags, counts), False) for tags in plain.values() if len(tags) > 1]
    totals = {key: sum(counts[tag] for tag in tags) for key, tags in plain.items()}
    for rare, right in _typos(totals):
        found.append(Spellings(_ordered([plain[right][0], plain[rare][0]], counts), True))
    return sorted(found, key=lambda each: (each.is_typo, -sum(count for _, count in each.tags)))


def _plain(tag: str) -> str:
    return re.sub(r"[\s_-]+", " ", tag.replace("\\", "")).strip().casefold()


def _ordered(tags: Iterable[str], counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(((tag, counts[tag]) for tag in tags), key=lambda item: (-item[1], item[0])))


def _typos(totals: Mapping[str, int]) -> list[tuple[str, str]]:
    """(rare, frequent) of every two tags that differ by a letter left out, added, changed or two swapped."""
    by_rest: dict[str, set[str]] = {}
    for tag in totals:
        if len(tag) >= TYPO_LETTERS:
            for rest in {tag, *(tag[:place] + tag[place + 1 :] for place in range(len(tag)))}:
                by_rest.setdefault(rest, set()).add(tag)
    found: dict[str, str] = {}
    for tags in by_rest.values():
        for rare in tags:
            for right in tags:
                if totals[right] >= TYPO_TIMES * totals[rare] and _is_slip(rare, right):
                    found[rare] = max(found.get(rare, right), right, key=lambda tag: (totals[tag], tag))
    return sorted(found.items())


def _is_slip(rare: str, right: str) -> bool:
    """One letter off, and not another number or the plural."""
    if rare == right or re.findall(r"\d+", rare) != re.findall(r"\d+", right):
        return False
    if sorted((rare, right), key=len) in ([rare, f"{rare}s"], [right, f"{right}s"]):
        return False
    if abs(len(rare) - len(right)) == 1:
        return True  # they share what is left without a letter
    different = [place for place, (a, b) in enumerate(zip(rare, right)) if a != b]  # noqa: B905 - equally long
    swapped = len(different) == 2 and different[1] == different[0] + 1 and sorted(rare) == sorted(right)
    return len(rare) == len(right) and (len(different) == 1 or swapped)


def _twice(tags: Sequence[str]) -> str:
    counted = Counter(tags)
    return next((tag for tag, count in counted.items() if count > 1), "")


def _common(entries: Sequence[Entry], tags_of: Mapping[int, Sequence[str]]) -> list[Common]:
    """For each folder of at least two captions."""
    folders: dict[str, list[int]] = {}
    for number in sorted(tags_of):
        folders.setdefault(entries[number].folder, []).append(number)
    found = []
    for folder, numbers in folders.items():
        counted = Counter(tag for number in numbers for tag in dict.fromkeys(tags_of[number]))
        in_all = tuple(tag for tag, count in counted.items() if count == len(numbers))
        most = counted.most_common(1) if not in_all else []
        nearly = next((tag for tag, count in most if count >= NEARLY_ALL * len(numbers)), "")
        lacking = tuple(number for number in numbers if nearly and nearly not in tags_of[number])
        if len(numbers) > 1:
            found.append(Common(folder, len(numbers), in_all, nearly, lacking))
    return found
