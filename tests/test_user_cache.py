"""Each system's place for caches, and a place of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lora_trainer.user_cache import CACHE_FOLDER, user_cache


def test_the_place_follows_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(CACHE_FOLDER, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert user_cache("compiled") == tmp_path / ".cache" / "lora_trainer" / "compiled"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert user_cache("compiled") == tmp_path / "elsewhere" / "lora_trainer" / "compiled"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    assert user_cache("compiled") == tmp_path / "Local" / "lora_trainer" / "compiled"
    monkeypatch.setenv(CACHE_FOLDER, str(tmp_path / "mine"))
    assert user_cache("compiled") == tmp_path / "mine" / "compiled"
