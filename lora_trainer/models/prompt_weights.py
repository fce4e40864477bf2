"""Weights of words in captions and prompts: `(word:1.3)`, `(word)`, `[word]`, as the webuis read them."""

from __future__ import annotations

import re
from typing import NamedTuple

MORE = 1.1  # what a pair of round brackets without a number does; square brackets do the opposite

_SIGNS = re.compile(
    r"""
      \\ (?P<literal> [()\[\]\\] )?      # an escaped sign; a backslash before anything else is dropped
    | : \s* (?P<number> [+-]? (?: \d+\.?\d* | \.\d+ ) ) \s* (?P<close> \) )
    | (?P<sign> [()\[\]] )
    | (?P<text> [^\\()\[\]:]+ | : )
    """,
    re.VERBOSE,
)


class Fragment(NamedTuple):
    """A piece of text whose words all have the same weight."""

    text: str
    weight: float


def weighted_fragments(text: str) -> list[Fragment]:
    """Cut a text into pieces of one weight each, without the brackets. Weights of nested brackets multiply.

    A bracket that is never closed reaches to the end; one that closes nothing is text, and so is a number without
    brackets. ``\\(``, ``\\[`` and so on stand for the signs themselves.
    """
    texts: list[str] = []
    weights: list[float] = []
    starts: dict[str, list[int]] = {"(": [], "[": []}

    def weigh(opened: str, factor: float) -> None:
        for place in range(starts[opened].pop(), len(weights)):
            weights[place] *= factor

    for found in _SIGNS.finditer(text):
        sign = found["close"] or found["sign"] or ""
        if sign in ("(", "["):
            starts[sign].append(len(texts))
        elif sign == ")" and starts["("]:
            weigh("(", float(found["number"] or MORE))
        elif sign == "]" and starts["["]:
            weigh("[", 1 / MORE)
        else:
            texts.append(found["literal"] or ("" if found[0] == "\\" else found[0]))
            weights.append(1.0)
    for opened, factor in (("(", MORE), ("[", 1 / MORE)):
        while starts[opened]:
            weigh(opened, factor)
    return _merged(texts, weights)


def has_bare_brackets(text: str) -> bool:
    """Whether brackets without a number change a weight: meant so, or the name of a tag such as `saber (fate)`."""
    opened = 0
    for found in _SIGNS.finditer(text):
        if found["sign"] == "[" or (found["sign"] == ")" and opened):
            return True
        if found["sign"] == "(":
            opened += 1
        elif found["close"] and opened:
            opened -= 1
    return opened > 0


def _merged(texts: list[str], weights: list[float]) -> list[Fragment]:
    """Neighbours of the same weight as one, since words are looked for within a fragment."""
    merged: list[Fragment] = []
    for text, weight in zip(texts, weights, strict=True):
        if merged and merged[-1].weight == weight:
            merged[-1] = Fragment(merged[-1].text + text, weight)
        elif text:
            merged.append(Fragment(text, weight))
    return merged
