"""Find the pictures that a data set holds twice: the same file, the same pixels, nearly the same, or the mirror image.

Candidates agree in most of 64 bits; what is taken for a copy also correlates in its colours. n pictures, p pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_trainer.data.doctor.fingerprints import SIDE_PX, Fingerprint

# Among 4,000 icons of few kinds these find 18 groups, each of variants of one drawing. FAR is for other compression and
# size, whose bits are chance where a picture is flat; CLOSE for other light and small changes.
FAR = (16, 0.98)  # bits that may differ, and correlation that is needed
CLOSE = (4, 0.93)
BLANK = 3.0  # standard deviation of the colours of a picture that shows nothing
BLOCK, CHUNK, MANY = 256, 8192, 0.02
MOST_COMPARED = 40_000  # of more pictures only equal files are found
MOST_DECODED = 400  # pictures whose pixels are compared
_ONES = np.array([bin(word).count("1") for word in range(1 << 16)], np.uint8)

SAME_FILE, SAME_PIXELS, ALIKE, MIRRORED = "same file", "same pixels", "alike", "mirrored"


@dataclass(frozen=True)
class Copies:
    """Numbers of pictures that are copies of each other in the same way."""

    kind: str
    numbers: tuple[int, ...]

    def within(self, folders: Sequence[str]) -> list[Copies]:
        """Those that share a folder, by the folder of each number."""
        groups = _by_value({number: folders[number] for number in self.numbers})
        return [Copies(self.kind, numbers) for numbers in groups]


def find_copies(
    digests: Sequence[str], prints: Sequence[Fingerprint | None], pixels_of: Callable[[int], str]
) -> tuple[Copies, ...]:
    """Groups of copies: equal files, then equal pixels, then what is alike, each sorted.

    `digests` are of the files, "" for those that cannot be read. `pixels_of` tells whether two pictures with equal
    fingerprints are equal; it is asked for few. Of equal files the first stands for all in the other groups.
    """
    same = _by_value({number: digest for number, digest in enumerate(digests) if digest})
    firsts = {number for numbers in same for number in numbers[1:]}
    compared = [number for number, each in enumerate(prints) if each is not None and number not in firsts]
    near = list(_near([(number, each) for number in compared if (each := prints[number]) is not None]))
    equal = _by_value(_pixels(near, prints, pixels_of))
    partner = {number: numbers[0] for numbers in equal for number in numbers}
    groups = [Copies(SAME_FILE, numbers) for numbers in same] + [Copies(SAME_PIXELS, numbers) for numbers in equal]
    for mirrored, kind in ((False, ALIKE), (True, MIRRORED)):
        edges = {(partner.get(left, left), partner.get(right, right)) for left, right, flag in near if flag == mirrored}
        groups += [Copies(kind, numbers) for numbers in _joined(sorted(edges))]
    return tuple(groups)


def is_blank(shown: Fingerprint) -> bool:
    """Whether it is of one colour."""
    return float(shown.pixels.std(axis=(0, 1)).max()) < BLANK


def standardised(prints: Sequence[Fingerprint]) -> NDArray[np.float32]:
    """(n, 768) with mean 0 in each channel and length 1, so that a product of two rows is their correlation."""
    colours = np.stack([each.pixels for each in prints]).astype(np.float32)
    rows = (colours - colours.mean(axis=(1, 2), keepdims=True)).reshape(len(prints), -1)
    lengths: NDArray[np.float32] = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return np.asarray(rows / lengths, np.float32)


def _near(compared: Sequence[tuple[int, Fingerprint]]) -> Iterator[tuple[int, int, bool]]:
    """(number, number, mirrored) of every two that are alike; the mirror image only where the picture is not."""
    kept = [(number, each) for number, each in compared if not is_blank(each)]
    if not 2 <= len(kept) <= MOST_COMPARED:
        return
    numbers = [number for number, _ in kept]
    prints = [each for _, each in kept]
    colours = standardised(prints)
    flipped = colours.reshape(-1, SIDE_PX, SIDE_PX, 3)[:, :, ::-1].reshape(colours.shape)
    bits = np.array([each.bits for each in prints], np.uint64)
    mirrors = np.array([each.mirrored_bits for each in prints], np.uint64)
    seen: set[tuple[int, int]] = set()
    for mirrored, first_bits, first_colours in ((False, bits, colours), (True, mirrors, flipped)):
        for left, right in _matches(first_bits, bits, first_colours, colours):
            if (left, right) not in seen:
                seen.add((left, right))
                yield numbers[left], numbers[right], mirrored


def _matches(
    first: NDArray[np.uint64], second: NDArray[np.uint64], left: NDArray[np.float32], right: NDArray[np.float32]
) -> Iterator[tuple[int, int]]:
    """Every two rows i < j, of the first and the second, that are close enough in bits (n,) and colours (n, 768)."""
    for start in range(0, len(first), BLOCK):
        apart = _ones(first[start : start + BLOCK, None] ^ second[None, start:])
        rows, columns = np.nonzero(apart <= FAR[0])
        chosen = columns > rows
        rows, columns = rows[chosen], columns[chosen]
        if len(rows) > MANY * apart.size:  # a product of all is quicker than looking up so many
            alike = (left[start : start + BLOCK] @ right[start:].T)[rows, columns]
        else:
            alike = _row_products(left[start:], right[start:], rows, columns)
        good = (alike >= FAR[1]) | ((apart[rows, columns] <= CLOSE[0]) & (alike >= CLOSE[1]))
        yield from zip((start + rows[good]).tolist(), (start + columns[good]).tolist(), strict=True)


def _row_products(
    left: NDArray[np.float32], right: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(p,) of the rows of the first and the rows of the second with these numbers."""
    found = np.empty(len(rows), np.float32)
    for at in range(0, len(rows), CHUNK):
        part = slice(at, at + CHUNK)
        found[part] = np.einsum("pc,pc->p", left[rows[part]], right[columns[part]])
    return found


def _ones(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """How many bits are set in each."""
    if hasattr(np, "bitwise_count"):  # from NumPy 2 on
        return np.asarray(np.bitwise_count(words), np.uint8)
    halves = np.ascontiguousarray(words).view(np.uint16).reshape(*words.shape, 4)
    return np.asarray(_ONES[halves].sum(axis=-1), np.uint8)


def _pixels(
    near: Sequence[tuple[int, int, bool]], prints: Sequence[Fingerprint | None], pixels_of: Callable[[int], str]
) -> dict[int, str]:
    """What the pixels of pictures are whose fingerprints are the same."""
    same = [(left, right) for left, right, mirrored in near if not mirrored and prints[left] == prints[right]]
    wanted = [number for edge in same for number in edge]
    return {number: found for number in list(dict.fromkeys(wanted))[:MOST_DECODED] if (found := pixels_of(number))}


def _by_value(values: dict[int, str]) -> list[tuple[int, ...]]:
    """The numbers that share a value."""
    groups: dict[str, list[int]] = {}
    for number, value in values.items():
        groups.setdefault(value, []).append(number)
    return [tuple(numbers) for numbers in groups.values() if len(numbers) > 1]


def _joined(edges: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
    """The numbers that hang together."""
    above: dict[int, int] = {}

    def top(number: int) -> int:
        while above.setdefault(number, number) != number:
            above[number] = above[above[number]]
            number = above[number]
        return number

    for left, right in edges:
        if left != right:
            above[max(top(left), top(right))] = min(top(left), top(right))
    groups: dict[int, list[int]] = {}
    for number in sorted(above):
        groups.setdefault(top(number), []).append(number)
    return [tuple(numbers) for numbers in groups.values() if len(numbers) > 1]
