"""TOML files that a preset's keys name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lora_trainer.errors import Refusal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def parse_toml(text: str) -> dict[str, Any]:
    """The table. ValueError for what is no TOML."""
    return tomllib.loads(text)


def read_toml(path: Path, key: str) -> dict[str, Any]:
    """The file's content. Refusal, under the name of the key, where it cannot be read or is no TOML."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return tomllib.loads(text)
    except OSError as error:
        raise Refusal(f"{key}: {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise Refusal(f"{key}: {path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        cure = "; put what has a backslash, such as a folder, in single quotes" if "\\" in text else ""
        raise Refusal(f"{key}: {path}: is not TOML: {error}{cure}") from error
