"""Which file of a restorer a person means, and what it tells of how it was trained.

Imports no PyTorch.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.errors import Refusal
from lora_trainer.models.file_kinds import is_torch_file
from lora_trainer.models.restoration.file_names import AVERAGED, PLAIN
from lora_trainer.models.safetensors_header import read_header

SUFFIXES = (".safetensors", ".pth")
LAST_TIMESTEP = 999
LARGEST_PX = 16384
NAMED = 3


@dataclass(frozen=True)
class Told:
    """What a .safetensors file of ours says of itself; None where it does not, as in HYPIR's own files."""

    base: str | None = None  # the name of the folder alone
    prediction: str | None = None
    model_t: int | None = None
    coeff_t: int | None = None
    out_size: int | None = None
    prompt: str | None = None
    colour_fix: str | None = None


def chosen_weights(place: Path, plain: bool) -> Path:
    """The file itself, or that of a checkpoint's folder: its moving average where there is one, unless `plain`.

    Raises Refusal.
    """
    if place.is_file():
        if plain:
            raise Refusal(f"--no-ema chooses in a folder, and --weights {place} is a file; leave out --no-ema")
        return place
    if not place.is_dir():
        raise Refusal(f"--weights {place}: there is no such file or folder; give the {PLAIN}.pth of a restorer")
    names = (PLAIN,) if plain else (AVERAGED, PLAIN)
    files = (place / f"{name}{suffix}" for name in names for suffix in SUFFIXES)
    if found := next((file for file in files if file.is_file()), None):
        return found
    wanted = f"there is no {' and no '.join(f'{name}.safetensors or .pth' for name in names)} in it"
    raise Refusal(f"--weights {place}: {wanted}; {_cure(place)}")


def told(path: Path) -> Told:
    """Of the file, or for a .pth of the .safetensors beside it. Raises Refusal for numbers that cannot be."""
    source = path.with_suffix(".safetensors") if is_torch_file(path) else path
    facts: Mapping[str, str] = {}
    with contextlib.suppress(Refusal, OSError):  # what is wrong with the weights themselves is said by their reader
        facts = read_header(source).metadata
    if facts.get("trainer") != "restoration":
        return Told()
    return Told(
        facts.get("base_model"),
        facts.get("prediction"),
        _number(source, facts, "model_t", 0, LAST_TIMESTEP),
        _number(source, facts, "coeff_t", 0, LAST_TIMESTEP),
        _number(source, facts, "out_size", 8, LARGEST_PX),
        facts.get("prompt"),
        facts.get("colour_fix"),
    )


def _number(path: Path, facts: Mapping[str, str], key: str, least: int, largest: int) -> int | None:
    text = facts.get(key)
    if text is None:
        return None
    if not text.isdecimal() or not least <= int(text) <= largest:
        raise Refusal(
            f'{path}: its metadata has {key} "{text}", no number from {least} to {largest}; mend or remove it'
        )
    return int(text)


def _cure(place: Path) -> str:
    """A run's own folder has files and checkpoints, of which the newest may be meant."""
    found = sorted(file.name for file in place.glob("*.safetensors"))
    folders = [
        (int(match[1]), path.name) for path in place.iterdir() if (match := re.fullmatch(r".*-(\d+)", path.name))
    ]
    found += [max(folders)[1]] if folders else []
    if not found:
        return "give a folder checkpoint-N of a run, or a file"
    return f"give {' or '.join(str(place / name) for name in found[:NAMED])}"
