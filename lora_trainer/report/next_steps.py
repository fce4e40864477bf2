"""What a person does after a run: use the result, go on, or mend what made it fail."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from lora_trainer.engine.run_facts import RunFacts
from lora_trainer.report.verdict import without_folders

GOES_ON = "The same command goes on from the last checkpoint."
CURES = (  # how a message looks, and what helps
    (r"out of memory|OutOfMemory", "The device's memory was too small. {advice}. " + GOES_ON),
    (r"No space left|Errno 28|EDQUOT|quota", "The disk is full: make room, or give another output_dir. " + GOES_ON),
    (r"Permission denied|Read-only", "A file or folder may not be written to: change its permissions. " + GOES_ON),
    (r"not touched|not finite", "Look at the pictures that it names, then try a lower learning rate."),
    (r"No such file|FileNotFoundError", "A file that was there at the start is gone: put it back. " + GOES_ON),
)
SHORTENED = "\nOf each folder only the last part is shown here; the whole command is in status.json or facts.json."
NO_CURE = "The lines of the log above the error say more. " + GOES_ON


@dataclass(frozen=True)
class NextSteps:
    """`rows` are of a program and what to do there; `command` is to be typed."""

    title: str
    text: str = ""
    command: str = ""
    rows: tuple[tuple[str, str], ...] = ()


def next_steps(status: Mapping[str, Any], facts: RunFacts | None, best_file: str = "") -> NextSteps:
    """By the state that the run ended in. `best_file` is the one that validation found best."""
    typed = str(status.get("continue_with") or (facts.command if facts else ""))
    command = without_folders(typed)
    hint = SHORTENED if command != typed else ""
    state = status.get("state")
    if state == "finished":
        return _use(status, facts, best_file)
    if state == "stopped":
        return NextSteps("Go on", "Everything is saved. The same command goes on where it was stopped." + hint, command)
    if state == "failed":
        said = without_folders(str(status.get("message") or "The run ended with an error."))
        return NextSteps("Why it failed, and what helps", f"{said}\n{cure_of(said, facts)}{hint}", command)
    return NextSteps(
        "Go on", "If it is no more at work, the same command goes on from the last checkpoint." + hint, command
    )


def cure_of(message: str, facts: RunFacts | None) -> str:
    advice = facts.memory_advice if facts and facts.memory_advice else "Try a smaller batch"
    for pattern, cure in CURES:
        if re.search(pattern, message):
            return cure.format(advice=advice)
    return NO_CURE


def _use(status: Mapping[str, Any], facts: RunFacts | None, best_file: str) -> NextSteps:
    name = file_name(str(status.get("result") or ""))
    if not name or name == "None":
        return NextSteps("The result", "It is in the folder of this page.")
    rows = facts.material.how_to_use if facts else ()
    named = {"{file}": name, "{stem}": re.sub(r"\.(safetensors|ckpt|pth|pt)$", "", name)}
    filled = tuple((where, re.sub(r"\{file\}|\{stem\}", lambda each: named[each[0]], text)) for where, text in rows)
    best = f" By validation {best_file} was the best one." if best_file else ""
    return NextSteps("Use the result", f"The result is {name}, in the folder of this page.{best}", rows=filled)


def file_name(path: str) -> str:
    """The last part, whichever system wrote the path."""
    return PureWindowsPath(PurePosixPath(path).name).name
