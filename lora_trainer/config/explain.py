"""What a key means, for `--explain KEY`."""

from __future__ import annotations

import json
import textwrap

from lora_trainer.config import other_models
from lora_trainer.config.schema import default_as_written
from lora_trainer.config.setting import Key, keys_of
from lora_trainer.config.trainers import TRAINERS, trainer_named
from lora_trainer.errors import Refusal, did_you_mean

WIDTH = 100


def explain(key: str, trainer: str = "") -> str:
    """A few lines about a key, under its present or a former name, for one trainer or for each that has it.

    Raises Refusal for a key that is not known.
    """
    names = [trainer] if trainer else list(TRAINERS)
    pages = {name: page for name in names if (page := _page_of(key, name))}
    if not pages:
        known = [word for name in names for word in _words(name)]
        raise Refusal(f"{key}: no key of the trainer{'s' if len(names) > 1 else ''} {', '.join(names)}"
                      f"{did_you_mean(key, known)}")  # fmt: skip
    if len(set(pages.values())) == 1:
        return next(iter(pages.values()))
    alike = {page: ", ".join(name for name in pages if pages[name] == page) for page in pages.values()}
    return "\n\n".join(f"[{names}]\n{page}" for page, names in alike.items())


def _words(trainer: str) -> list[str]:
    keys = keys_of(trainer_named(trainer).preset)
    return [*keys, *(old for key in keys.values() for old in key.setting.old_names)]


def _page_of(key: str, trainer: str) -> str:
    row = trainer_named(trainer)
    keys = keys_of(row.preset)
    former = {old: name for name, each in keys.items() for old in each.setting.old_names}
    name = former.get(key, key)
    if name in keys:
        return _page(keys[name], former_name=key if key in former else "")
    if row.with_gui_keys and key in other_models.KEYS:
        return f"{key}: for models that lora_trainer does not train; it trains SD 1.x, SD 2.x and SDXL."
    return ""


def facts(key: Key) -> str:
    """What may be written and what is taken without it: "a number from 0 to 1; default 0"."""
    if key.setting.required:
        return f"{key.legal}; required, for example {key.setting.example}"
    default = default_as_written(key)
    return f"{key.legal}; " + ("not set by default" if default == "" else f"default {_plain(default)}")


def effect(key: Key) -> str:
    """Whether it does anything."""
    if key.effect.kind == "none":
        return f"Accepted without effect: {key.effect.reason}."
    if key.effect.kind == "later":
        return "Not supported yet: any other value than the default is refused."
    return f"Not supported yet: {', '.join(key.setting.later)}." if key.setting.later else ""


def _page(key: Key, former_name: str) -> str:
    lines = [f"{key.name} ({key.group}): {facts(key)}", key.setting.about]
    if former_name:
        lines.insert(0, f"{former_name} is a former name of {key.name}.")
    if said := effect(key):
        lines.append(said)
    if key.effect.kind == "real":
        lines.append("May change when a run is continued." if key.setting.may_change else "Fixed for a whole run.")
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)


def _plain(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    wordless = isinstance(value, str) and not any(letter.isalnum() for letter in value)
    return value if isinstance(value, str) and not wordless else json.dumps(value, ensure_ascii=False)
