"""The values of a preset that may be shown to others."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath

from lora_trainer.config.common import CommonPreset
from lora_trainer.config.kinds import Paths, PathText, as_json, is_secret
from lora_trainer.config.setting import keys_of

SECRET_WORD = re.compile(r"([-_](?:key|token)[\s=:]+)\S+", re.IGNORECASE)
PATH_WORD = re.compile(r"\S+\.(?:txt|json|toml)", re.IGNORECASE)


def public_values(preset: CommonPreset) -> dict[str, object]:
    """By key, ready for JSON: without secrets, of a path only its last part, and without what has no effect."""
    values: dict[str, object] = {}
    for key in keys_of(type(preset)).values():
        value = as_json(getattr(preset, key.field))
        if is_secret(key.annotation) or key.effect.kind != "real":
            continue
        if key.annotation == PathText or (isinstance(value, str) and PATH_WORD.fullmatch(value.strip())):
            value = _last_part(str(value))
        elif key.annotation == Paths and isinstance(value, list):
            value = [_last_part(str(item)) for item in value]
        values[key.name] = without_secrets(value) if isinstance(value, str) else _without_folders(value)
    return values


def without_secrets(text: str) -> str:
    """A command line without the keys and tokens in it."""
    return SECRET_WORD.sub(r"\1***", text)


def _without_folders(value: object) -> object:
    """What is in lists and sections, with only the last part of each path that begins at a root or a drive."""
    if isinstance(value, dict):
        return {name: _without_folders(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    is_rooted = isinstance(value, str) and (value.startswith(("/", "~")) or PureWindowsPath(value).is_absolute())
    return _last_part(str(value)) if is_rooted else value


def _last_part(path: str) -> str:
    return PureWindowsPath(PurePosixPath(path.strip()).name).name
