"""What docs/restoration.md says of restoring pictures is what the command takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from lora_trainer import restore

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "restoration.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## Restoring pictures\n")[2].partition("\n## ")[0]
OPTION = re.compile(r"--[a-z][\w-]*")


def test_the_commands_are_taken() -> None:
    whole = SECTION.replace("\\\n", " ")
    commands = re.findall(r"^python -m lora_trainer\.restore (.*)$", whole + (restore.__doc__ or ""), re.MULTILINE)
    assert len(commands) >= 4
    for words in commands:
        restore.parser().parse_args(shlex.split(words))


def test_every_option_is_in_the_table_and_no_other() -> None:
    rows = [line.split("|")[1] for line in SECTION.splitlines() if line.startswith("| `--")]
    named = {option for row in rows for option in OPTION.findall(row)}
    assert named == set(OPTION.findall(restore.parser().format_help())) - {"--help", "--version"}
    assert set(OPTION.findall(SECTION)) == named
