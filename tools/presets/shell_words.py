"""The words of the command that a shell script or a batch file runs, with its variables filled in."""

from __future__ import annotations

import re
from collections.abc import Callable

from lora_trainer.config.arguments import split_arguments

CONTINUED = re.compile(r"[ \t]*[\\^`][ \t]*\r?\n[ \t]*")  # how a POSIX shell, cmd and PowerShell go on in the next line
COMMENT = re.compile(r"^\s*(?:#|::|rem\b).*$", re.IGNORECASE | re.MULTILINE)
BATCH = re.compile(r'^\s*set\s+"?(\w+)=([^"\n]*?)"?\s*$', re.IGNORECASE | re.MULTILINE)
SHELL = re.compile(  # POSIX: name=value, PowerShell: $name = "value"
    r"""^\s*(?:export\s+)?\$?(?:env:)?([A-Za-z_]\w*)\s*=\s*("[^"\n]*"|'[^'\n]*'|[^\s"'()]+)\s*(?:\#.*)?$""",
    re.IGNORECASE | re.MULTILINE,
)
VARIABLE = re.compile(r"\$\{(\w+)\}|\$(?:env:)?(\w+)|%(\w+)%")


def command_words(text: str, is_wanted: Callable[[str], bool]) -> list[str]:
    """The words of the first command that has one of the wanted words; empty when there is none.

    Understands lines that go on, comments, and variables that are set to a plain value. What is not set stays as it is.
    """
    text = CONTINUED.sub(" ", COMMENT.sub("", text))
    assigned = [*SHELL.findall(text), *BATCH.findall(text)]
    known = {name.casefold(): value.strip("\"'") for name, value in assigned}
    for line in text.splitlines():
        words = split_arguments(line)
        if any(is_wanted(word) for word in words):
            return list(split_arguments(_filled(line, known)))
    return []


def variables_left(word: str) -> list[str]:
    """The variables that nothing in the text sets."""
    return [match.group(0) for match in VARIABLE.finditer(word)]


def _filled(line: str, known: dict[str, str]) -> str:
    for _ in range(3):  # a variable may hold another
        line = VARIABLE.sub(lambda match: known.get((match[1] or match[2] or match[3]).casefold(), match[0]), line)
    return line
