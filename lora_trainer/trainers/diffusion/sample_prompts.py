"""The previews of `sample_prompts`: lines in sd-scripts' notation, or a .txt, .json or .toml file of them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_trainer.config.kinds import Unfit, choices
from lora_trainer.config.lora_saving import Samples
from lora_trainer.config.setting import keys_of
from lora_trainer.config.toml_file import read_toml
from lora_trainer.errors import Refusal, did_you_mean

log = logging.getLogger(__name__)

SAMPLERS = tuple(str(name) for name in choices(keys_of(Samples)["sample_sampler"].annotation))
FOR_OTHER_MODELS = "is for Flux and the like, which are not trained here; guidance is --l"
REFUSED = {
    "cn": "ControlNet is not supported in previews; remove the option",
    "g": f"the embedded guidance {FOR_OTHER_MODELS}",
    "fs": f"the flow shift {FOR_OTHER_MODELS}",
}
# sd-scripts' names of a preview's parts in JSON and TOML -> the options of a line
FILE_KEYS = {
    "negative_prompt": "n", "width": "w", "height": "h", "seed": "d", "sample_steps": "s", "scale": "l",
    "sample_sampler": "ss", "controlnet_image": "cn", "guidance_scale": "g", "flow_shift": "fs",
}  # fmt: skip
LARGEST_SIDE_PX, MOST_STEPS = 8192, 1000


@dataclass(frozen=True)
class SamplePrompt:
    """One preview. Sides are multiples of 8 px; the same seed every time, so that previews can be compared.

    Without a `sampler` of its own it takes the preset's.
    """

    text: str
    negative: str = ""
    width_px: int = 512
    height_px: int = 512
    seed: int = 0
    steps: int = 30
    guidance: float = 7.5
    sampler: str = ""


def read_prompts(value: str, seed: int) -> tuple[SamplePrompt, ...]:
    """The prompts of the text itself or of the file that it names. Refusal with the place of each that is wrong.

    A prompt without a seed gets one that follows from the run's and from its place among the prompts.
    """
    prompts: list[SamplePrompt] = []
    problems: list[str] = []
    for place, asked in _asked(value):
        try:
            prompt, notes = _prompt(asked, seed + len(prompts))
        except Unfit as unfit:
            problems.append(f"{place}: {unfit}")
            continue
        prompts.append(prompt)
        for note in notes:
            log.info("note: %s: %s", place, note)
    if problems:
        raise Refusal(*problems)
    return tuple(prompts)


def prompt_file(value: str) -> Path | None:
    """The file that `sample_prompts` names, or None where it is the text of the prompts itself."""
    word = value.strip()
    return Path(word) if word.lower().endswith((".txt", ".json", ".toml")) and "\n" not in word else None


def _asked(value: str) -> Iterator[tuple[str, object]]:
    """Each prompt with its place: a line of text, or an object with sd-scripts' names."""
    path = prompt_file(value)
    if path is None:
        yield from _lines("sample_prompts", value)
    elif path.suffix.lower() == ".txt":
        yield from _lines(str(path), _content(path))
    else:
        entries = _json_list(path) if path.suffix.lower() == ".json" else _toml_list(path)
        for number, entry in enumerate(entries, 1):
            yield f"{path}: prompt {number}", entry


def _lines(place: str, text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            yield f"{place}: line {number}", line


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Refusal(f"sample_prompts: {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise Refusal(f"sample_prompts: {path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _json_list(path: Path) -> Sequence[object]:
    try:
        found = json.loads(_content(path))
    except json.JSONDecodeError as error:
        text = f"sample_prompts: {path}:{error.lineno}:{error.colno}: is not JSON ({error.msg})"
        raise Refusal(text) from error
    if not isinstance(found, list):
        raise Refusal(f'sample_prompts: {path}: must hold a list of prompts: [{{"prompt": "a cat", "seed": 1}}]')
    return found


def _toml_list(path: Path) -> Sequence[object]:
    """The `[[prompt.subset]]` of the file, each with what `[prompt]` says for all."""
    common = read_toml(path, "sample_prompts").get("prompt")
    subsets = common.get("subset") if isinstance(common, dict) else None
    if not isinstance(common, dict) or not isinstance(subsets, list) or not all(isinstance(s, dict) for s in subsets):
        raise Refusal(f"sample_prompts: {path}: write [prompt] for what all have and [[prompt.subset]] for each prompt")
    shared = {key: value for key, value in common.items() if key != "subset"}
    return [{**shared, **subset} for subset in subsets]


def _prompt(asked: object, seed: int) -> tuple[SamplePrompt, list[str]]:
    """The preview and what is to be said about it. Raises Unfit."""
    if isinstance(asked, str):
        text, options = _from_line(asked)
    elif isinstance(asked, dict):
        text, options = _from_entry(asked)
    else:
        raise Unfit("write an object with a prompt, or a line of text")
    prompt, notes = SamplePrompt(text, seed=seed), []
    for name, shown, value in options:
        if name in REFUSED:
            raise Unfit(f"{shown}: {REFUSED[name]}")
        if name not in OPTIONS:
            raise Unfit(f"{shown}: unknown option; the options are {', '.join('--' + key for key in OPTIONS)}")
        field, read = OPTIONS[name]
        try:
            meant = read(value)
        except (TypeError, ValueError, OverflowError) as error:
            number = "a whole number" if name == "d" else "a number"
            why = str(error) if isinstance(error, Unfit) else f"not {number}"
            raise Unfit(f"{shown} {value}: {why}") from None
        if name == "d" and meant < 0:  # sd-scripts' way to ask for no seed in particular
            continue
        if isinstance(meant, int) and str(meant) != str(value).strip():
            notes.append(f"{shown} {value} is read as {meant}")
        prompt = replace(prompt, **{field: meant})
    return prompt, notes


def _from_line(line: str) -> tuple[str, list[tuple[str, str, object]]]:
    text, *parts = re.split(r"\s--(?=[a-zA-Z])", f" {line}")
    options: list[tuple[str, str, object]] = []
    for part in parts:
        name, _, value = part.partition(" ")
        options.append((name.lower(), f"--{name}", value.strip()))
    return text.strip(), options


def _from_entry(entry: Mapping[str, Any]) -> tuple[str, list[tuple[str, str, object]]]:
    options: list[tuple[str, str, object]] = []
    for key, value in entry.items():
        if key == "prompt" or value is None:
            continue
        if key not in FILE_KEYS:
            known = ("prompt", *FILE_KEYS)
            raise Unfit(f"{key}: unknown key{did_you_mean(key, known)}; the keys are {', '.join(known)}")
        options.append((FILE_KEYS[key], key, value))
    return str(entry.get("prompt") or ""), options


def _side(value: Any) -> int:
    """Pixels, rounded down to a multiple of 8, at least 64."""
    side = int(float(value)) // 8 * 8
    if side > LARGEST_SIDE_PX:
        raise Unfit(f"a side has at most {LARGEST_SIDE_PX} pixels")
    return max(64, side)


def _steps(value: Any) -> int:
    return min(max(1, int(float(value))), MOST_STEPS)


def _seed(value: Any) -> int:
    number = int(value)
    if number >= 2**63:
        raise Unfit("a seed has at most 63 bits")
    return number


def _guidance(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= 1000:
        raise Unfit("guidance is a number from 0 to 1000")
    return number


def _sampler(value: Any) -> str:
    name = str(value).strip().casefold()
    if name not in SAMPLERS:
        raise Unfit(f"unknown sampler{did_you_mean(name, SAMPLERS) or '; the samplers are ' + ', '.join(SAMPLERS)}")
    return name


OPTIONS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "n": ("negative", str),
    "w": ("width_px", _side),
    "h": ("height_px", _side),
    "d": ("seed", _seed),
    "s": ("steps", _steps),
    "l": ("guidance", _guidance),
    "ss": ("sampler", _sampler),
}
