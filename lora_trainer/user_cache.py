"""Where this person's caches lie: what can be made anew at any time, and is shared by all runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_FOLDER = "LORA_TRAINER_CACHE"  # the environment variable that names another place


def user_cache(name: str) -> Path:
    """The folder of one cache; it need not be there yet. Each system has its own place for caches."""
    if named := os.environ.get(CACHE_FOLDER):
        return Path(named) / name
    base = os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lora_trainer" / name
