"""How a wrong preset is reported: every problem at once, each with its place and the cure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable

from lora_trainer.errors import Refusal

SHOWN_CHARACTERS = 60


class PresetError(Refusal):
    """A preset that cannot be used; `problems` holds one sentence for each thing to mend."""


def shown(value: object) -> str:
    """A value as it would stand in the JSON file, shortened so that the sentence stays readable."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def one_of(choices: Iterable[object]) -> str:
    names = [str(choice) for choice in choices]
    return f"one of {', '.join(names)}" if len(names) > 1 else names[0]


def first_sentence(text: str) -> str:
    return text.split(". ")[0].rstrip(".")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a typing error most likely stands for; upper and lower case do not matter."""
    by_folded = {name.casefold(): name for name in known}
    matches = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    match = nearest(word, known)
    return f"; did you mean {match}?" if match else ""
