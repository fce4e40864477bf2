"""The blocks into which kohya's presets divide a UNet, to give each its own rank or its own rate.

SD 1.x and 2.x have 25 blocks: 12 on the way down, 1 in the middle, 12 on the way up. SDXL has 23: the embeddings of
time and size, 9 down, 3 in the middle, 9 up, and the output layers. Down and up are numbered as `input_blocks` and
`output_blocks` of the original checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from lora_trainer.errors import Refusal
from lora_trainer.models.base_configs import Kind
from lora_trainer.models.ldm_keys import unet_module_map

Side = Literal["down", "mid", "up"]

SIZES: Mapping[Kind, tuple[int, int, int]] = {"sd15": (12, 1, 12), "sd21": (12, 1, 12), "sdxl": (9, 3, 9)}
SIDES: tuple[Side, Side, Side] = ("down", "mid", "up")
CURVES: Mapping[str, Callable[[float], float]] = {  # of the place from 0 to 1
    "cosine": lambda place: math.sin(math.pi * (1 - place) / 2),
    "sine": lambda place: math.sin(math.pi * place / 2),
    "linear": lambda place: place,
    "reverse_linear": lambda place: 1 - place,
    "zeros": lambda place: 0.0,
}


def block_count(kind: Kind) -> int:
    return 23 if kind == "sdxl" else 25


def block_of(kind: Kind, paths: Sequence[str], unet_config: Mapping[str, Any]) -> dict[str, int]:
    """The block in which each module of a UNet lies, by its path in diffusers' layout."""
    ldm_paths = unet_module_map(unet_config)
    return {path: _block(kind, ldm_paths[path]) for path in paths}


def _block(kind: Kind, ldm_path: str) -> int:
    part, _, rest = ldm_path.partition(".")
    number = rest.partition(".")[0]
    down, middle, _ = SIZES[kind]
    first = 1 if kind == "sdxl" else 0
    if part == "input_blocks":
        return first + int(number)
    if part == "middle_block":
        return first + down + (int(number) if middle > 1 else 0)
    if part == "output_blocks":
        return first + down + middle + int(number)
    return block_count(kind) - 1 if part == "out" else 0


def rate_factors(kind: Kind, weights: Mapping[Side, str], threshold: float) -> list[float] | None:
    """The factor of every block's rate, or None where no side says anything. 0 leaves a block untrained.

    A side is numbers ("0,0,0.5,1"; what is missing at the end is 1), or the name of a curve and what is added to it
    ("cosine+.25"). Factors that are not above `threshold` become 0. Raises Refusal.
    """
    if not any(weights.values()):
        return None
    factors = [1.0] if kind == "sdxl" else []
    for side, size in zip(SIDES, SIZES[kind], strict=True):
        factors += _side(side, weights.get(side, ""), size)
    factors += [1.0] * (block_count(kind) - len(factors))
    return [factor if factor > threshold else 0.0 for factor in factors]


def _side(side: Side, text: str, size: int) -> list[float]:
    key = f"{side}_lr_weight"
    name, _, added = text.partition("+")
    if name.strip() in CURVES:
        curve = CURVES[name.strip()]
        offset = _number(key, added) if added.strip() else 0.0
        return [curve(place / max(1, size - 1)) + offset for place in range(size)]
    numbers = [_number(key, word) for word in text.split(",")] if text.strip() else []
    if len(numbers) > size:
        raise Refusal(f"{key}: {len(numbers)} numbers, but this base model has {size} blocks there")
    return numbers + [1.0] * (size - len(numbers))


def _number(key: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        known = ", ".join(CURVES)
        raise Refusal(f"{key}: {word.strip()!r} is no number from 0 upwards; write numbers or one of {known}")
    return value


def block_numbers(key: str, text: str, kind: Kind, *, whole: bool) -> list[float] | None:
    """A number for each block ("4,4,8,..."), or None for an empty text. Raises Refusal that names the preset's key."""
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    if not words:
        return None
    if len(words) != block_count(kind):
        raise Refusal(f"{key}: {len(words)} numbers; this base model has {block_count(kind)} blocks, so write as many")
    numbers = []
    for word in words:
        number = _number(key, word)
        if whole and not number.is_integer():
            raise Refusal(f"{key}: {word} is not a whole number")
        numbers.append(number)
    return numbers
