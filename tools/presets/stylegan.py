"""The command line of train.py, of StyleGAN3, CREPS or StyleGAN2-ADA, as a preset of the GAN trainer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lora_trainer.config.gan import GanPreset
from lora_trainer.config.kinds import PathText, Switch, is_text
from lora_trainer.config.problems import shown
from lora_trainer.config.setting import Key, keys_of
from lora_trainer.errors import did_you_mean
from tools.presets.conversion import Converted
from tools.presets.shell_words import command_words, variables_left

SCRIPT = re.compile(r"(?:^|[\\/])train\.py$", re.IGNORECASE)
TOLD_BY = ("outdir", "cfg", "gamma", "gpus")  # options that other programs' train.py do not have
OPTIONS = (
    "outdir", "cfg", "data", "gpus", "batch", "gamma", "cond", "mirror", "aug", "resume", "freezed", "p", "target",
    "batch_gpu", "cbase", "cmax", "glr", "dlr", "map_depth", "mbstd_group", "desc", "metrics", "kimg", "tick", "snap",
    "seed", "fp32", "nobench", "workers", "allow_tf32", "pl_weight", "pl_start_kimg",
)  # fmt: skip
FLAGS = {"n": "--dry-run of lora_trainer shows the plan", "dry_run": "--dry-run of lora_trainer shows the plan"}
DROPPED = {"nhwc": "the layout in memory is chosen by the device"}
YES, NO = ("1", "true", "t", "yes", "y", "on"), ("0", "false", "f", "no", "n", "off")
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def is_gan_command(words: Sequence[str]) -> bool:
    """Whether a train.py is called with options that only those of the StyleGAN family have."""
    at = _script(words)
    names = {_name(word) for word in words[at + 1 :]} if at is not None else set()
    return len(names.intersection(TOLD_BY)) >= 2


def gan_command_words(text: str) -> list[str]:
    """The words of the first such call in a text, a shell script or a batch file; empty when there is none."""
    words = command_words(text, lambda word: bool(SCRIPT.search(word)))
    return words if is_gan_command(words) else []


def convert_gan(words: Sequence[str]) -> Converted:
    """The preset's keys have the options' names."""
    at = _script(words)
    assert at is not None
    converted = Converted({"trainer": "gan"})
    keys = keys_of(GanPreset)
    for name, value in _options(words[at + 1 :], converted).items():
        if name in DROPPED:
            converted.left[f"--{name}"] = DROPPED[name]
            continue
        problem = _problem(name, value)
        if problem:
            converted.problems.append(problem)
        elif value is not None:
            converted.preset[name] = _read(keys[name], value, converted)
    _tell(words[:at], converted)
    return converted


def _options(words: Sequence[str], converted: Converted) -> dict[str, str | None]:
    """`--batch-gpu=4` and `--batch-gpu 4` alike; the last one counts. What is a flag goes to what is left."""
    found: dict[str, str | None] = {}
    at = 0
    while at < len(words):
        word, at = words[at], at + 1
        if not _name(word):
            converted.problems.append(f"{shown(word)} belongs to no option; put a value with blanks in quotes")
            continue
        name, (_, equals, value) = _name(word), word.partition("=")
        if name in FLAGS:
            converted.left[word] = FLAGS[name]
        elif equals:
            found[name] = _unquoted(value)
        elif at < len(words) and not _name(words[at]):
            found[name], at = _unquoted(words[at]), at + 1
        else:
            found[name] = None
    return found


def _problem(name: str, value: str | None) -> str:
    """What is wrong with an option whatever it means; "" for one that can be read."""
    spelt = f"--{name.replace('_', '-')}"
    if name not in OPTIONS:
        hint = did_you_mean(spelt, [f"--{known.replace('_', '-')}" for known in OPTIONS])
        return f"{spelt} is no option of train.py that is known here{hint}"
    if value is None:
        return f"{spelt} has no value; write {spelt}=..."
    left = variables_left(value)
    return f"{spelt}: nothing says what {left[0]} is; write the value" if left else ""


def _read(key: Key, text: str, converted: Converted) -> object:
    """The value as JSON has it; what is wrong with it is said when the preset is loaded."""
    if key.annotation == Switch:
        word = text.casefold()
        return True if word in YES else False if word in NO else text
    if key.annotation == PathText and text.startswith("~"):
        path = str(_at_home(text))
        converted.notes.append(f"{key.name}: {text} is read as {path}")
        return path
    if key.name == "metrics" and "," in text:
        return [name.strip() for name in text.split(",")]
    if is_text(key.annotation) or not NUMBER.fullmatch(text):
        return text
    number = float(text)
    return int(number) if number.is_integer() and re.fullmatch(r"[+-]?\d+", text) else number


def _at_home(text: str) -> Path | str:
    """Shells leave ~ alone behind --data=."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return text


def _tell(launcher: Sequence[str], converted: Converted) -> None:
    preset = converted.preset
    if launcher:
        many = f" --num_processes {preset['gpus']}" if preset.get("gpus", 1) != 1 else ""
        started = f"the preset is started by accelerate launch{many} -m lora_trainer"
        converted.left[" ".join(launcher)] = f"starts the script; {started}"
    if preset.get("seed") == 0:
        converted.notes.append("seed: 0 draws a new seed for each run; write another number to have the same run again")


def _script(words: Sequence[str]) -> int | None:
    return next((number for number, word in enumerate(words) if SCRIPT.search(word)), None)


def _name(word: str) -> str:
    """`batch_gpu` of --batch-gpu=4, `n` of -n; "" for what is no option, such as -1."""
    found = re.match(r"--([A-Za-z][\w-]*)(?:=|$)|-([A-Za-z])$", word)
    return (found[1] or found[2]).replace("-", "_") if found else ""


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'" else text
