"""Every command of docs/tools.md, and of the tools' own descriptions, is one that the tool takes."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("merge_lora", "extract_lora", "resize_lora", "show_metadata", "convert_lora", "before_after", "dataset_doctor")
PAGE = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"^python -m tools\.(\w+) (.*?(?:\\\n.*?)*)$", re.MULTILINE)


def commands(text: str) -> list[tuple[str, str]]:
    return [(name, words.replace("\\\n", " ")) for name, words in COMMAND.findall(text)]


@pytest.mark.parametrize("tool", TOOLS)
def test_the_commands_are_taken(tool: str) -> None:
    module = importlib.import_module(f"tools.{tool}")
    lines = commands(PAGE) + commands(module.__doc__ or "")
    own = [words for name, words in lines if name == tool]
    assert len(own) >= 4
    for words in own:
        module._parser().parse_args(shlex.split(words))


@pytest.mark.parametrize("tool", TOOLS)
def test_the_options_that_the_page_names_are_there(tool: str) -> None:
    """And every option but the common ones is on the page."""
    options = set(re.findall(r"--[a-z][\w-]*", importlib.import_module(f"tools.{tool}")._parser().format_help()))
    assert options - set(re.findall(r"--[a-z][\w-]*", PAGE)) <= {"--device"}


def test_the_page_names_no_other_options() -> None:
    known = {
        option
        for tool in TOOLS
        for option in re.findall(r"--[a-z][\w-]*", importlib.import_module(f"tools.{tool}")._parser().format_help())
    }
    assert set(re.findall(r"--[a-z][\w-]*", PAGE)) <= known
