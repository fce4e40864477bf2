"""The lines of `sample_prompts`: a prompt and its options, in sd-scripts' notation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lora_trainer.errors import Refusal

OPTIONS: Mapping[str, tuple[str, type]] = {
    "n": ("negative", str),
    "w": ("width_px", int),
    "h": ("height_px", int),
    "d": ("seed", int),
    "s": ("steps", int),
    "l": ("guidance", float),
}
LATER = {"ss": "a sampler of its own", "cn": "ControlNet", "g": "guidance scale of the negative prompt"}


@dataclass(frozen=True)
class SamplePrompt:
    """One preview. Sides are multiples of 8 px; the same seed every time, so that previews can be compared."""

    text: str
    negative: str = ""
    width_px: int = 512
    height_px: int = 512
    seed: int = 0
    steps: int = 30
    guidance: float = 7.5


def read_prompts(value: str, seed: int) -> tuple[SamplePrompt, ...]:
    """The prompts of the text itself or of the .txt file that it names. Refusal with file and line for a wrong one.

    A prompt without `--d` gets a seed that follows from the run's.
    """
    text, place = value, "sample_prompts"
    if value.strip().lower().endswith(".txt") and "\n" not in value.strip():
        path = Path(value.strip())
        try:
            text, place = path.read_text(encoding="utf-8-sig"), str(path)
        except OSError as error:
            raise Refusal(f"sample_prompts: {path}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise Refusal(f"sample_prompts: {path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    prompts: list[SamplePrompt] = []
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            prompts.append(_prompt(line, seed + len(prompts)))
        except ValueError as error:
            problems.append(f"{place}: line {number}: {error}")
    if problems:
        raise Refusal(*problems)
    return tuple(prompts)


def _prompt(line: str, seed: int) -> SamplePrompt:
    text, *options = re.split(r"\s--(?=[a-zA-Z]{1,2}\s)", f" {line}")
    prompt = SamplePrompt(text.strip(), seed=seed)
    for option in options:
        name, _, value = option.partition(" ")
        name, value = name.lower(), value.strip()
        if name in LATER:
            raise ValueError(f"--{name} ({LATER[name]}) is not yet supported")
        if name not in OPTIONS:
            raise ValueError(f"--{name}: unknown option; the options are {', '.join('--' + key for key in OPTIONS)}")
        field, kind = OPTIONS[name]
        try:
            prompt = replace(prompt, **{field: kind(value)})
        except ValueError:
            raise ValueError(f"--{name} {value}: not a number") from None
    for name, side in (("w", prompt.width_px), ("h", prompt.height_px)):
        if side < 64 or side % 8:
            raise ValueError(f"--{name} {side}: a side must be a multiple of 8, at least 64")
    if not 1 <= prompt.steps <= 1000:
        raise ValueError(f"--s {prompt.steps}: between 1 and 1000 steps")
    return prompt
