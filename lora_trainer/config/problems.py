"""How a wrong preset is reported: every problem at once, each with its place and the cure."""

from __future__ import annotations

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
