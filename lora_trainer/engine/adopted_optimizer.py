"""Taking an optimizer's state over into a run that is made differently: its moments, but not its old options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lora_trainer.engine.optimizers import load_optimizer_state

OURS = ("lr", "base_lr", "name", "until", "params")  # follow from the preset
PLAIN = (bool, int, float, str, type(None))


def made_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Which optimizer it is and what it was made with, as plain values."""
    options = {key: value for key, value in optimizer.defaults.items() if _plain(value)}
    return {"name": type(optimizer).__name__, "options": options}


def adopt_state(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """Load a `state_dict()` of an optimizer that was `made_of` other options. Gives why it cannot be, or "".

    Of what stands in the groups, options that the preset has changed stay as they are now; the rest are numbers that
    the optimizer keeps there (Prodigy's estimate of the rate, the averages of schedule-free ones).
    """
    now = made_of(optimizer)
    if made.get("name") != now["name"]:
        return f"it is {now['name']} and was {made.get('name', 'another')}"
    if "param_groups" not in saved:
        return "it is made of several, whose states are not taken over"
    groups, before = optimizer.param_groups, saved["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in before]:
        return "its weights are in other groups"
    changed = {key for key, value in now["options"].items() if made["options"].get(key) != value}
    kept = [
        {key: value for key, value in group.items() if key in OURS or key in changed or key not in old}
        for group, old in zip(groups, before, strict=True)
    ]
    merged = [{**old, **own, "params": old["params"]} for old, own in zip(before, kept, strict=True)]
    load_optimizer_state(optimizer, {**saved, "param_groups": merged})
    return ""


def _plain(value: object) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, (tuple, list)) and all(map(_plain, value)))
