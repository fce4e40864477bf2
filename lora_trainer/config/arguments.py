"""The `key=value` words in which optimizers and schedulers take their options."""

from __future__ import annotations

import ast
import re

from lora_trainer.config.problems import shown

_WORDS = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+|["']""")
_NAME = re.compile(r"[A-Za-z_]\w*")


def split_arguments(text: str) -> tuple[str, ...]:
    """Cut at blanks outside quotes: `"a=1" b="x y"` is `a=1` and `b="x y"`."""
    return tuple(_unquoted(word) for word in _WORDS.findall(text))


def parse_arguments(words: tuple[str, ...]) -> dict[str, object]:
    """Names and Python values: `betas=0.9,0.99` is a tuple. Raises ValueError with a sentence for the person."""
    options: dict[str, object] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise ValueError(f"{shown(word)} is not of the form name=value")
        if name in options:
            raise ValueError(f"{name} is given twice")
        options[name] = _literal(name, value)
    return options


def _literal(name: str, text: str) -> object:
    for spelling in (_unquoted(text), text):  # betas="0.9,0.99" is a tuple, mode="cos" a text
        try:
            value: object = ast.literal_eval(spelling)
            return value
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    raise ValueError(f"{name} cannot be {shown(text)}; write a number, True, False, None, (1, 2) or a text in quotes")


def _unquoted(word: str) -> str:
    quoted = len(word) >= 2 and word[0] == word[-1] and word[0] in "\"'" and word[0] not in word[1:-1]
    return word[1:-1] if quoted else word
